"""CelebA, FairFace and UTKFace as published, made up small: every image gets the label its table or name gives."""

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.common.paths import Layout
from gender_classifier.data.archive import Archive
from gender_classifier.data.groups import name_groups
from gender_classifier.data.labelled_files import open_source
from gender_classifier.data.layouts import utkface
from gender_classifier.data.layouts.class_folders import Rules
from gender_classifier.data.manifest import Record
from gender_classifier.data.raw_table import RawRow, read_raw_table
from gender_classifier.errors import SourceError
from gender_classifier.ingest.sources import ingest
from gender_classifier.pipeline.params import load_params
from gender_classifier.preprocess.report import list_images
from gender_classifier.preprocess.splits import split_records
from gender_classifier.verify.inspection import inspect_all
from gender_classifier.verify.policies import check_fitness, judge

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PICTURES = [picture(seed, 40, 50) for seed in range(60)]
PEOPLE = range(1, 61)
"""Numbers of images; odd ones are male, and each person has two neighbours."""


def label_of(number: int) -> str:
    return "male" if number % 2 else "female"


def celeba(*, csv_files: bool, sep: str = ",") -> dict[str, bytes]:
    suffix, gap = ("csv", ",") if csv_files else ("txt", "  ")
    names = [f"{number:06}.jpg" for number in PEOPLE]
    folder = "img_align_celeba/img_align_celeba" if csv_files else "img_align_celeba"
    attributes = [
        [name, "1" if n % 3 else "-1", "1" if n % 2 else "-1", "-1"] for n, name in zip(PEOPLE, names, strict=True)
    ]
    splits = [[name, "0" if n <= 36 else "1" if n <= 48 else "2"] for n, name in zip(PEOPLE, names, strict=True)]
    people = [[name, str((n + 3) // 4)] for n, name in zip(PEOPLE, names, strict=True)]

    def lines(rows: list[list[str]], *header: str) -> bytes:
        return "".join(f"{line}\n" for line in (*header, *map(gap.join, rows))).encode()

    heads = ("image_id,Smiling,Male,Young",) if csv_files else ("60", "Smiling Male Young ")
    return {
        **{f"{folder}/{name}": PICTURES[n - 1] for n, name in zip(PEOPLE, names, strict=True)},
        f"list_attr_celeba.{suffix}": lines(attributes, *heads),
        f"list_eval_partition.{suffix}": lines(splits, *(["image_id,partition"] if csv_files else [])),
        "identity_CelebA.txt": "".join(f"{name} {person}\n" for name, person in people).encode(),
    }


def fairface() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for split, numbers in (("train", PEOPLE[:40]), ("val", PEOPLE[40:])):
        rows = ["file,age,gender,race,service_test"]
        for n in numbers:
            name = f"{split}/{n - numbers[0] + 1}.jpg"
            files[name] = PICTURES[n - 1]
            rows.append(
                f"{name},{'more than 70' if n % 3 else '0-2'},{label_of(n).title()},Latino_Hispanic,{n % 5 == 0}"
            )
        files[f"fairface_label_{split}.csv"] = "\n".join(rows).encode()
    return files


def utk() -> dict[str, bytes]:
    names = [f"{n}_{1 - n % 2}_{n % 5}_2017010914240{8000 + n}.jpg.chip.jpg" for n in PEOPLE]
    names[0] = "61_0_20170109142408075.jpg.chip.jpg"  # no race
    names[1] = "24_1_1_20170116220224657 .jpg"
    names[2] = "44_0_4_20170116235150272.pg.chip.jpg".replace(".pg", "jpg")  # no dot
    return {f"UTKFace/{name}": PICTURES[n - 1] for n, name in zip(PEOPLE, names, strict=True)}


def write(folder: Path, files: Mapping[str, bytes], *, zipped: bool) -> Path:
    if zipped:
        with zipfile.ZipFile(folder / "set.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"top/{name}", data)
        return folder / "set.zip"
    for name, data in files.items():
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "set" / name).write_bytes(data)
    return folder / "set"


def run(folder: Path, source: Path) -> tuple[dict[str, RawRow], dict[str, list[Record]], list[dict[str, object]]]:
    """Run the first three stages; return the table of labels, the splits, and the rows of the table of images."""
    layout = Layout(folder)
    params = replace(PARAMS.ingest, source=str(source))
    ingest(params, layout.raw_archive_path, layout.raw_table_path, base_dir=folder)
    with (
        Archive(layout.raw_archive_path) as archive,
        inspect_all(archive, layout.raw_table_path, 10**6) as inspected,
    ):
        records = judge([record for record, _ in inspected], PARAMS.verify)
        contents = {name: archive.read(name) for name in archive.members}
    check_fitness(records, PARAMS.verify)
    splits, _ = split_records(records, PARAMS.preprocess)
    groups = {record.member: name for record, name in zip(records, name_groups(records), strict=True)}
    table = read_raw_table(layout.raw_table_path)
    rows = {row.member: row for row in table.rows}
    table = read_raw_table(layout.raw_table_path)
    listed = list_images(splits, table, groups)
    images = [dict(zip(listed.header, row, strict=True)) for row in listed.rows]
    for member, row in rows.items():
        assert row.label == label_of(1 + PICTURES.index(contents[member]))
    assert len(rows) == len(contents) == 60
    return rows, splits, images


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("csv_files", [True, False])
def test_celeba(tmp_path: Path, *, csv_files: bool, zipped: bool) -> None:
    rows, splits, images = run(tmp_path, write(tmp_path, celeba(csv_files=csv_files), zipped=zipped))
    for member, row in rows.items():
        n = int(member[-10:-4])
        assert (row.group, row.split) == (str((n + 3) // 4), "train" if n <= 36 else "val" if n <= 48 else "test")
        assert row.attributes == ("yes" if n % 3 else "no", "no")
    assert {name: len(records) for name, records in splits.items()} == {"train": 36, "val": 12, "test": 12}
    assert list(images[0])[5:] == ["Smiling", "Young"]
    assert len(images) == 60


def test_people_of_celeba_without_its_partition_stay_on_one_side(tmp_path: Path) -> None:
    files = {name: data for name, data in celeba(csv_files=False).items() if "partition" not in name}
    _, splits, images = run(tmp_path, write(tmp_path, files, zipped=True))
    sides: dict[object, set[object]] = {}
    for row in images:
        sides.setdefault(row["group"], set()).add(row["split"])
    assert len(sides) == 15
    assert all(len(found) == 1 for found in sides.values())
    # 60 images of 15 people, of whom each class has 2 images: whole people, near the wanted 12 and 5.
    assert 12 <= len(splits["test"]) <= 24
    assert 4 <= len(splits["val"]) <= 16


@pytest.mark.parametrize("zipped", [True, False])
def test_fairface(tmp_path: Path, *, zipped: bool) -> None:
    rows, splits, images = run(tmp_path, write(tmp_path, fairface(), zipped=zipped))
    assert {(member.split("/")[-2], row.split) for member, row in rows.items()} == {("train", "train"), ("val", "test")}
    assert len(splits["test"]) == 20
    assert {row["age"] for row in images} == {"0-2", "more than 70"}
    assert list(images[0])[5:] == ["age", "race", "service_test"]


@pytest.mark.parametrize("zipped", [True, False])
def test_utkface(tmp_path: Path, *, zipped: bool) -> None:
    rows, splits, images = run(tmp_path, write(tmp_path, utk(), zipped=zipped))
    assert {name: len(records) for name, records in splits.items()} == {"train": 44, "val": 4, "test": 12}
    found = {str(row["path"]).rpartition("/")[2]: (row["age"], row["age_group"], row["race"]) for row in images}
    assert found["61_0_20170109142408075.jpg.chip.jpg"] == ("61", "60-69", "")
    assert found["24_1_1_20170116220224657 .jpg"] == ("24", "20-29", "Black")
    assert found["44_0_4_20170116235150272jpg.chip.jpg"] == ("44", "40-49", "Other")
    assert found["9_0_4_20170109142408009.jpg.chip.jpg"] == ("9", "3-9", "Other")
    assert len(rows) == 60


def test_a_published_set_is_an_extra_set_too(tmp_path: Path) -> None:
    classes = {"female": ("female",), "male": ("male",)}
    rules = Rules("evaluate.extra.new", classes, fixed=True, refuses_strays=True, refuses_unreadable=False)
    with open_source(str(write(tmp_path, fairface(), zipped=False)), rules) as source:
        assert source.attributes == ("age", "race", "service_test")
        assert {(image.label, label_of(1 + PICTURES.index(image.read()))) for image in source.images} == {
            (0, "female"), (1, "male")}  # fmt: skip


def change(files: dict[str, bytes], name: str, old: bytes, new: bytes) -> dict[str, bytes]:
    assert old in files[name]
    return files | {name: files[name].replace(old, new, 1)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (change(celeba(csv_files=False), "list_attr_celeba.txt", b"Male", b"Man"), "names no column Male"),
        (
            change(celeba(csv_files=False), "list_attr_celeba.txt", b"000002.jpg  1", b"000002.jpg  0"),
            "line 4 is not an image",
        ),
        (
            change(celeba(csv_files=False), "list_attr_celeba.txt", b"000002", b"000001"),
            "line 4 is not an image of its own",
        ),
        (
            change(celeba(csv_files=False), "list_eval_partition.txt", b"000002.jpg  0", b"000002.jpg  3"),
            "is in the split '3'",
        ),
        (
            change(celeba(csv_files=False), "identity_CelebA.txt", b"000002", b"000099"),
            "000002.jpg is not in every table",
        ),
        (celeba(csv_files=False) | {"list_attr_celeba.csv": b""}, "holds a table of CelebA twice"),
        ({k: v for k, v in celeba(csv_files=True).items() if "000007" not in k}, "line 8: 000007.jpg (no such file)"),
        (fairface() | {"copy/fairface_label_val.csv": b""}, "holds a table of FairFace twice"),
        ({k: v for k, v in fairface().items() if k != "val/3.jpg"}, "line 4: val/3.jpg (no such file)"),
        (utk() | {"UTKFace/me.jpg": b""}, "1 of its images are not named age_gender_race_time.jpg: UTKFace/me.jpg"),
    ],
)
def test_damaged_sets_are_refused_by_name(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    source = write(tmp_path, files, zipped=False)
    with pytest.raises(SourceError) as caught:
        ingest(replace(PARAMS.ingest, source=str(source)), tmp_path / "r.zip", tmp_path / "r.csv", base_dir=tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_form_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    source = write(tmp_path, fairface(), zipped=False)
    params = replace(PARAMS.ingest, source=str(source), format="celeba")
    with pytest.raises(SourceError, match="is not laid out as celeba is published; check ingest.format"):
        ingest(params, tmp_path / "r.zip", tmp_path / "r.csv", base_dir=tmp_path)


@given(
    st.lists(st.tuples(st.integers(0, 116), st.integers(0, 1), st.integers(0, 4)), min_size=2, unique=True), st.data()
)
def test_a_label_of_utkface_does_not_depend_on_the_order_of_the_names(
    people: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    names = [f"{age}_{gender}_{race}_20170109142408075.jpg" for age, gender, race in people]
    found = utkface.find(data.draw(st.permutations(names)), "x")
    expected = {
        name: (("male", "female")[gender], str(age)) for name, (age, gender, _) in zip(names, people, strict=True)
    }
    assert {entry.path: (entry.label, entry.attributes[0]) for entry in found.entries} == expected
