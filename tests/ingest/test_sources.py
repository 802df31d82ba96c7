"""Sources become one archive, or one line that says what is wrong with them."""

import csv
import hashlib
import io
import json
import os
import re
import stat
import sys
import types
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folders import refuse_folder

from gender_classifier.data.archive import Archive
from gender_classifier.data.layouts.naming import order_classes
from gender_classifier.data.raw_table import RawRow, read_raw_table
from gender_classifier.errors import ArchiveError, GenderClassifierError, SourceError
from gender_classifier.ingest.report import describe_classes
from gender_classifier.ingest.sources import KAGGLE_HANDLE, Snapshot, ingest
from gender_classifier.pipeline.params import load_params

PARAMS = replace(load_params(Path(__file__).parents[2] / "params.yaml").ingest, sample_train=24, sample_val=8)
FILES = {f"{split}/{label}/{n}.jpg.jpg": f"{split}{label}{n}".encode()
         for split in ("Training", "Validation") for label in ("female", "male") for n in (2, 1, 10)}  # fmt: skip


def fill(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def take(source: str | Path, base: Path) -> tuple[Snapshot, dict[str, bytes]]:
    out = base / "out" / "raw.zip"
    snapshot = ingest(replace(PARAMS, source=str(source)), out, out.with_suffix(".csv"), base_dir=base)
    assert snapshot.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    with Archive(out) as archive:
        return snapshot, {name: archive.read(name) for name in archive.members}


def read_rows(base: Path) -> list[RawRow]:
    table = read_raw_table(base / "out" / "raw.csv")
    return list(table.rows)


def test_a_folder_a_zip_and_a_deeper_zip_give_one_archive(tmp_path: Path) -> None:
    clutter = {"README.txt": b"hi", "__MACOSX/Training/female/._1.jpg": b"x", "Training/female/.DS_Store": b"x"}
    sources = [
        fill(tmp_path / "folder"),
        pack(tmp_path / "flat.zip", dict(reversed(FILES.items()))),
        pack(tmp_path / "deep.zip", {f"archive/faces/{name}": data for name, data in FILES.items()}),
        fill(fill(tmp_path / "cluttered", clutter)),
    ]
    found = [take(source, tmp_path) for source in sources]
    assert [members for _, members in found] == [FILES] * 4
    assert len({snapshot.sha256 for snapshot, _ in found}) == 1
    assert [snapshot.kind for snapshot, _ in found] == ["folder", "zip", "zip", "folder"]
    assert [snapshot.ignored for snapshot, _ in found] == [0, 0, 0, 3]
    splits = {"Training": "train", "Validation": "test"}
    rows = read_rows(tmp_path)
    assert [row.member for row in rows] == sorted(FILES)
    for row in rows:
        folder, label, _ = row.member.split("/")
        assert (row.split, row.label, row.group, row.attributes) == (splits[folder], label, "", ())
    assert found[0][0].counts == dict.fromkeys(("test/female", "test/male", "train/female", "train/male"), 3)


def test_a_relative_path_means_the_project_root(tmp_path: Path) -> None:
    fill(tmp_path / "project" / "faces")
    snapshot, _ = take("faces", tmp_path / "project")
    assert (snapshot.source, snapshot.num_images) == ("faces", 12)


def test_the_sample_is_drawn(tmp_path: Path) -> None:
    snapshot, members = take("sample", tmp_path)
    assert (snapshot.kind, snapshot.num_images, len(members)) == ("sample", 32, 32)
    assert Counter((row.split, row.label) for row in read_rows(tmp_path)) == {
        ("train", "female"): 12, ("train", "male"): 12, ("test", "female"): 4, ("test", "male"): 4}  # fmt: skip
    assert "say nothing about faces" in snapshot.note


def without(*prefixes: str) -> dict[str, bytes]:
    return {name: data for name, data in FILES.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b""}, "is no data set of this layout; it must hold a folder for each class, with images"),
        ({"1.jpg": b"", "2.jpg": b""}, "is no data set of this layout"),
        (without("Validation/male"), "test/male missing or empty; each split needs images of every class"),
        (without("Training/male", "Validation/male"), "the number of its classes is 1 (female); it must be 2 to 1,000"),
        (FILES | {"Training/other/1.jpg": b""}, "the class 'other' has 1 image and needs at least 2"),
        (
            FILES | {"second/Training/male/1.jpg": b""},
            "holds 2 data sets; give the path of one: {source}/., {source}/second",
        ),
        (
            {name.replace("Training/", "Training/Training/"): data for name, data in FILES.items()},
            "lies in Training/Training, the folder is doubled; move the contents of Training/Training one level up",
        ),
        (
            {name.replace("Validation/", "Training/Validation/"): data for name, data in FILES.items()},
            "lies in Training/Validation, one is inside the other",
        ),
        ({"train/female/1.jpg": b"", "a.txt": b""}, "the number of its classes is 1 (female)"),
        (
            {"f\n/1.jpg": b"", "f\n/2.jpg": b"", "m/1.jpg": b"", "m/2.jpg": b""},
            "has the class 'f\\n'; a name is 1 to 200",
        ),
    ],
)
def test_other_layouts_are_refused_by_name(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for source in (fill(tmp_path / "folder", files), pack(tmp_path / "a.zip", files)):
        with pytest.raises(SourceError, match=re.escape(message.format(source=source))) as caught:
            take(source, tmp_path)
        assert str(source) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_one_of_several_data_sets_is_chosen_by_its_path(tmp_path: Path, kind: str) -> None:
    copy = {f"copy/x/{name}": data + b"2" for name, data in FILES.items()}
    both = FILES | copy
    source = fill(tmp_path / "set", both) if kind == "folder" else pack(tmp_path / "set.zip", both)
    assert take(f"{source}/.", tmp_path)[1] == FILES
    for inner in ("copy", "copy/x", "copy/x/."):
        assert sorted(take(f"{source}/{inner}", tmp_path)[1].values()) == sorted(copy.values())
    snapshot, _ = take(f"{source}/.", tmp_path)
    assert (snapshot.ignored, snapshot.kind) == (12, kind)
    with pytest.raises(GenderClassifierError, match=r"no folder 'nope'|no such folder"):
        take(f"{source}/nope", tmp_path)


def test_two_names_of_one_data_set_are_no_choice(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "v2")
    (tmp_path / "set" / "current").symlink_to("v2")
    assert take(tmp_path / "set", tmp_path)[1] == FILES


def test_any_name_comes_through(tmp_path: Path) -> None:
    names = {"a\\b.jpg": "a%5Cb.jpg", "c\rd\n$.jpg": "c\rd\n$.jpg", "e:%.jpg": "e:%.jpg"}
    if sys.platform == "linux":
        names[os.fsdecode(b"\xff.jpg")] = "%FF.jpg"
    folder = fill(tmp_path / "folder", FILES | {f"Training/male/{name}": b"x" for name in names})
    fill(folder, {"Training/male/Icon\r": b"", "Training/male/Thumbs.db": b""})
    snapshot, members = take(folder, tmp_path)
    assert set(members) - set(FILES) == {f"Training/male/{name}" for name in names.values()}
    assert snapshot.ignored == 2
    fill(folder, {"Training/male/a%5Cb.jpg": b"y"})
    with pytest.raises(SourceError, match=re.escape("would both become Training/male/a%5Cb.jpg; rename one of them")):
        take(folder, tmp_path)


def test_a_zip_of_windows_is_read(tmp_path: Path) -> None:
    _, members = take(pack(tmp_path / "a.zip", {f"x\\{n}".replace("/", "\\"): d for n, d in FILES.items()}), tmp_path)
    assert members == FILES


def test_bystanders_in_a_zip_are_ignored_and_counted(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", FILES | {"README.txt": b"1", "x.mp4": bytes(64 * 2**20 + 1), "../up.txt": b""})
    link = zipfile.ZipInfo("Training/female/latest.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("README.txt", b"2")
        archive.writestr(link, b"1.jpg.jpg")
    snapshot, members = take(path, tmp_path)
    assert members == FILES
    assert snapshot.ignored == 4
    assert len(snapshot.remarks) == 1
    assert "not readable, left out (4): " in snapshot.remarks[0]
    assert "Training/female/latest.jpg (is a symbolic link)" in snapshot.remarks[0]


@pytest.mark.parametrize("name", ["Training/male/9.jpg", "Training/male/9.HEIC", "Training/male/9"])
def test_an_image_in_a_zip_that_must_not_be_read_stops(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "a.zip", FILES | {name: bytes(64 * 2**20 + 1)})
    with pytest.raises(ArchiveError, match=f"'{name}' would unpack to"):
        take(path, tmp_path)
    assert not (tmp_path / "out").exists()


def test_files_of_a_folder_that_cannot_be_read_stop_by_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder")
    for number in range(7):
        (folder / "Training" / "male" / f"gone{number}.jpg").symlink_to("nothing")
    os.mkfifo(folder / "Validation" / "male" / "batch")  # no suffix: it might be an image
    with pytest.raises(SourceError, match="8 of its files cannot be read: ") as caught:
        take(folder, tmp_path)
    assert "Training/male/gone0.jpg (a link to nothing)" in str(caught.value)
    assert "and 3 more; check their permissions" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_entered_stops_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "folder", FILES | {"lost+found/x": b""})
    for name, stops in (("lost+found", False), ("female", True)):
        with monkeypatch.context() as patch:
            refuse_folder(patch, name)
            if stops:
                with pytest.raises(
                    SourceError, match="2 of its folders cannot be read: Training/female .Permission denied"
                ):
                    take(folder, tmp_path)
            else:
                take(folder, tmp_path)


def test_other_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder", FILES | {"cover.jpg": b"x", "Training/male/x.avif": b"x"})
    (folder / "loop").symlink_to(".")
    (folder / "Training" / "male" / "notes.txt").symlink_to("nothing")
    snapshot, members = take(folder, tmp_path)
    assert set(members) == {*FILES, "Training/male/x.avif"}
    assert snapshot.remarks == (
        "images named as of a format that is not decoded (AVIF), to be converted (1): Training/male/x.avif",
        "images outside the class folders, left out (1): cover.jpg",
        "not readable, left out (1): Training/male/notes.txt (a link to nothing)",
        "links to a folder around them, not followed (1): loop",
    )


def test_linked_class_folders_are_followed_within_the_source(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder", {**without("Validation/male"), ".men/1.jpg": b"1"})
    (folder / "Validation" / "male").symlink_to("../.men")
    assert take(folder, tmp_path)[1]["Validation/male/1.jpg"] == b"1"


@pytest.mark.parametrize("name", ["Training/male/b.jpg", "Training/male/b", "Training/male"])
def test_what_lies_outside_the_source_does_not_get_into_the_archive(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "home", {"key.pem": b"secret", "1.jpg": b"secret"})
    folder = fill(tmp_path / "folder", without("Training/male") if name.endswith("male") else FILES)
    (folder / name).symlink_to(tmp_path / "home" / ("" if name.endswith("male") else "key.pem"))
    what = "folders" if name.endswith("male") else "files"
    message = f"1 of its {what} cannot be read: {name} (a link that leads out of the folder); check their permissions"
    with pytest.raises(SourceError, match=re.escape(message)):
        take(folder, tmp_path)
    assert not (tmp_path / "out").exists()


def test_bystanders_that_lead_out_are_left_out_by_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder")
    (tmp_path / "note").write_text("secret")
    (folder / "notes.txt").symlink_to("../note")
    (folder / ".hidden").symlink_to("..")
    snapshot, members = take(folder, tmp_path)
    assert members == FILES
    assert "notes.txt (a link that leads out of the folder)" in " ".join(snapshot.remarks)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder or file; choose sample, kaggle, or a path"):
        take("nowhere.zip", tmp_path)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_archive_leaves_the_old_snapshot(tmp_path: Path, data: bytes) -> None:
    _, before = take(fill(tmp_path / "folder"), tmp_path)
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match="not a whole zip file"):
        take("bad.zip", tmp_path)
    with Archive(tmp_path / "out" / "raw.zip") as archive:
        assert {name: archive.read(name) for name in archive.members} == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["raw.csv", "raw.zip"]


def test_links_to_nothing_are_named_wherever_they_lie(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder")
    for name in ("album", "gone.jpg", "Training/more", "Training/notes.txt", ".#lock"):
        (folder / name).symlink_to("nothing")
    snapshot, members = take(folder, tmp_path)
    assert members == FILES
    assert snapshot.remarks == (
        "not readable, left out (4): Training/more (a link to nothing), Training/notes.txt (a link to nothing), album (a "
        "link to nothing), gone.jpg (a link to nothing)",
    )


def test_a_link_to_the_data_set_beside_it_leaves_nothing_out(tmp_path: Path) -> None:
    fill(tmp_path / "sets" / "v2", FILES | {"extra/1.jpg": b"1"})
    (tmp_path / "sets" / "latest").symlink_to("v2")
    snapshot, members = take(tmp_path / "sets", tmp_path)
    assert members == FILES
    assert snapshot.remarks == ("images outside the class folders, left out (2): latest/extra/1.jpg, v2/extra/1.jpg",)


def test_a_folder_named_like_a_split_without_images_is_no_data_set(tmp_path: Path) -> None:
    snapshot, members = take(pack(tmp_path / "a.zip", FILES | {"docs/Training/notes/readme.txt": b""}), tmp_path)
    assert (members, snapshot.ignored, snapshot.remarks) == (FILES, 1, ())


def test_the_pipelines_own_archive_is_no_source(tmp_path: Path) -> None:
    take(fill(tmp_path / "folder"), tmp_path)
    with pytest.raises(SourceError, match="pipeline's own archive"):
        take("out/raw.zip", tmp_path)


def test_kaggle_asks_for_the_pinned_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fill(tmp_path / "cache" / "archive")

    def download(handle: str) -> str:
        asked.append(handle)
        return str(tmp_path / "cache")

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=download))
    snapshot, members = take("kaggle", tmp_path)
    assert asked == [f"{KAGGLE_HANDLE}/versions/1"]
    assert (snapshot.kind, members) == ("kaggle", FILES)


def test_kaggle_without_network_says_how_to_do_it_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(GenderClassifierError, match="download the zip by hand") as caught:
        take("kaggle", tmp_path)
    assert "-S source=" in str(caught.value)
    assert "\n" not in str(caught.value)


FOUR = ("1.jpg", "2.jpg", "deep/er/1.jpg", "3.png")


def build(*folders: str) -> dict[str, bytes]:
    return {f"{folder}/{name}": f"{folder} {name}".encode() for folder in folders for name in FOUR}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "labels", "splits"),
    [
        (build("Woman", "MEN"), {"Woman": "female", "MEN": "male"}, {}),
        (build("set/f", "set/m", "set/girl"), {"f": "female", "girl": "female", "m": "male"}, {}),
        (build("woman", "man", "child"), {"woman": "woman", "man": "man", "child": "child"}, {}),
        (build("a/b/60+", "a/b/0-9", "a/b/x y"), {"60+": "60+", "0-9": "0-9", "x y": "x y"}, {}),
        (build("cat/f", "cat/m", "dog/x"), {"f": "female", "m": "male"}, {}),
        (build("train/cat", "train/dog", "holdout"), {"cat": "cat", "dog": "dog"}, {"train": "train"}),
        (
            build("train/cat", "train/dog", "VALID/cat", "VALID/dog"),
            {"cat": "cat", "dog": "dog"},
            {"train": "train", "VALID": "test"},
        ),
        (
            build(*(f"in/{split}/{label}" for split in ("Train", "dev", "Testing") for label in "ab")),
            {"a": "a", "b": "b"},
            {"Train": "train", "dev": "val", "Testing": "test"},
        ),
    ],
)
def test_each_image_gets_the_label_and_split_of_its_folders(
    tmp_path: Path, kind: str, files: dict[str, bytes], labels: dict[str, str], splits: dict[str, str]
) -> None:
    source = fill(tmp_path / "set", files) if kind == "folder" else pack(tmp_path / "set.zip", files)
    snapshot, members = take(source, tmp_path)
    rows = read_rows(tmp_path)
    assert [row.member for row in rows] == sorted(members)
    for row in rows:
        first, *rest = row.member.split("/")
        folder = rest[0] if first in splits else first
        assert (row.label, row.split) == (labels[folder], splits.get(first, "train"))
        (original,) = (name for name in files if name == row.member or name.endswith(f"/{row.member}"))
        assert members[row.member] == files[original]
    assert {name for names in snapshot.classes.values() for name in names} == set(labels)
    assert list(snapshot.classes) == sorted(set(labels.values()))


def test_equal_names_in_deeper_folders_are_kept_apart(tmp_path: Path) -> None:
    files = {f"{label}/{person}/1.jpg": f"{label}{person}".encode() for label in "ab" for person in ("x", "y", "x/y")}
    assert take(fill(tmp_path / "set", files), tmp_path)[1] == files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"child": ["child", "kids"], "adult": ["woman", "man"]}, ""),
        ({"adult": ["woman", "man"], "child": ["child", "kids"]}, ""),
        ({"child": ["child", "kid"], "adult": ["woman", "man"]}, "ingest.classes names kid, which no image has; the"),
        ({"child": ["child"], "adult": ["woman", "man"]}, "has the class kids, which ingest.classes does not name"),
    ],
)
def test_a_mapping_decides_on_the_classes_and_their_order(
    tmp_path: Path, text: dict[str, list[str]], message: str
) -> None:
    files = build("woman", "man", "child", "kids")
    source, out = fill(tmp_path / "set", files), tmp_path / "out" / "raw.zip"
    params = replace(PARAMS, source=str(source), classes=json.dumps(text))
    if message:
        with pytest.raises(SourceError, match=message):
            ingest(params, out, out.with_suffix(".csv"), base_dir=tmp_path)
        return
    snapshot = ingest(params, out, out.with_suffix(".csv"), base_dir=tmp_path)
    assert list(snapshot.classes) == list(text) == list(order_classes(["child"], params.classes))
    adults = {row.member.split("/")[0] for row in read_rows(tmp_path) if row.label == "adult"}
    assert adults == {"woman", "man"}
    assert describe_classes(snapshot.classes, snapshot.counts) in (
        "child = child | kids (8), adult = man | woman (8)",
        "adult = man | woman (8), child = child | kids (8)",
    )


ROWS = [
    ("img/a.jpg", "Male", "train", "p1", "old"), ("img/b.jpg", "female", "train", "p2", "=1"),
    ("x/b.jpg", "M", "train", "", ""), ("c.jpg", "woman", "train", "p2", "a;b"), ("x/d.jpg", "man", "test", "p9", "60+"),
    ("x/e.jpg", "F", "test", "", "old"),
]  # fmt: skip
MEANT = {"Male": "male", "M": "male", "man": "male", "female": "female", "woman": "female", "F": "female"}


def table(delimiter: str = ",", header: str = "path,label,split,group,age", bom: bytes = b"") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows([header.split(","), *ROWS])
    return bom + text.getvalue().encode()


def check_rows(base: Path, members: dict[str, bytes], files: dict[str, bytes]) -> None:
    expected = {path: (MEANT[label], split, group, (age,)) for path, label, split, group, age in ROWS}
    assert {row.member: (row.label, row.split, row.group, row.attributes) for row in read_rows(base)} == expected
    assert members == files


@pytest.mark.parametrize("kind", ["alone", "folder", "zip", "in a zip"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_decides_on_labels_splits_groups_and_attributes(tmp_path: Path, kind: str, delimiter: str) -> None:
    files = {path: path.encode() for path, *_ in ROWS}
    data = table(delimiter, bom=b"\xef\xbb\xbf" if delimiter == ";" else b"")
    name = "labels.tsv" if delimiter == "\t" else "labels.csv"
    around = files | {name: data, "x/other.jpg": b"", "notes.csv": b"a,b\n1,2\n"}
    if kind in ("alone", "folder"):
        source = fill(tmp_path / "set", around) / (name if kind == "alone" else "")
    else:
        source = pack(tmp_path / "set.zip", around) / (name if kind == "in a zip" else "")
    snapshot, members = take(source, tmp_path)
    check_rows(tmp_path, members, files)
    assert snapshot.layout == f"table {name}"
    assert snapshot.classes == {"female": ["F", "female", "woman"], "male": ["M", "Male", "man"]}
    if kind != "alone":
        assert snapshot.remarks == ("images that the table does not list, left out (1): x/other.jpg",)
        assert snapshot.ignored == 2


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("File_Name,Gender,split,group,age", {}),
        ("image_id,sex,split,group,age", {}),
        ("url,what,fold,who,age", {"path": "url", "label": "what", "split": "fold", "group": "who"}),
        ("file,class,split,who,age", {"group": "who"}),
    ],
)
def test_headers_are_usual_ones_or_given(tmp_path: Path, header: str, columns: dict[str, str]) -> None:
    files = {path: path.encode() for path, *_ in ROWS}
    source, out = fill(tmp_path / "set", files | {"t.csv": table(header=header)}), tmp_path / "out" / "raw.zip"
    ingest(replace(PARAMS, source=str(source), columns=columns), out, out.with_suffix(".csv"), base_dir=tmp_path)
    with Archive(out) as archive:
        check_rows(tmp_path, {name: archive.read(name) for name in archive.members}, files)


def test_files_are_found_by_the_end_of_their_path_where_one_alone_has_it(tmp_path: Path) -> None:
    files = {f"deep/{label}/{n}.jpg": f"{label}{n}".encode() for label in "ab" for n in "12"}
    rows = b"path,label\na/1.jpg,x\n./deep/a/2.jpg,y\nb\\1.jpg,y\n%s,x\n"
    source = fill(tmp_path / "set", files | {"meta/t.csv": rows % b"b/2.jpg"})
    take(source, tmp_path)
    assert {row.member: row.label for row in read_rows(tmp_path)} == {
        "deep/a/1.jpg": "x", "deep/a/2.jpg": "y", "deep/b/1.jpg": "y", "deep/b/2.jpg": "x"}  # fmt: skip
    fill(source, {"meta/t.csv": rows % b"2.jpg"})
    with pytest.raises(
        SourceError, match=r"t.csv: 1 of its images cannot be read: line 5: 2.jpg \(ends 2 paths, such as"
    ):
        take(source, tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1.jpg,x\n2.jpg,\n", "line 3 has no label; give one, or remove the line"),
        ("1.jpg,x\n./1.jpg,y\n", "line 3 lists 1.jpg, as line 2 does"),
        ("1.jpg,x\n9.jpg,y\n", "1 of its images cannot be read: line 3: 9.jpg ("),
        ("1.jpg,x\n../secret.jpg,y\n", "line 3: ../secret.jpg (not below the folder)"),
        ("1.jpg,x\nx/../../secret.jpg,y\n", "line 3: x/../../secret.jpg (not below the folder)"),
        ("1.jpg,x\n/etc/passwd,y\n", "line 3: /etc/passwd (not below the folder)"),
        ("1.jpg,x\nlink.jpg,y\n", "link.jpg (a link that leads out of the folder)"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_bad_rows_are_refused_by_line(tmp_path: Path, rows: str, message: str, *, alone: bool) -> None:
    fill(tmp_path, {"secret.jpg": b"secret"})
    source = fill(tmp_path / "set", {"1.jpg": b"1", "2.jpg": b"2", "t.csv": f"path,label\n{rows}".encode()})
    (source / "link.jpg").symlink_to("../secret.jpg")
    with pytest.raises(SourceError) as caught:
        take(source / "t.csv" if alone else source, tmp_path)
    assert message.removeprefix("link.jpg ") in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        (
            "file,image,label",
            {},
            "its columns file and image may each be the path; choose one: -S 'ingest.columns={path: ",
        ),
        ("path,gender,class", {}, "its columns gender and class may each be the label"),
        ("path,label,member", {}, "has a column 'member' of another meaning than in data/raw.csv; rename it"),
        ("path,label,who", {"group": "person"}, "has no column 'person', which ingest.columns gives for the group; it"),
        ("path,what,who", {"label": "nothing"}, "holds no table of labels, a .csv or .tsv with columns of paths and"),
    ],
)
def test_unclear_headers_are_refused(tmp_path: Path, header: str, columns: dict[str, str], message: str) -> None:
    rows = "".join(f"{n}.jpg,{'xy'[n % 2]},{n}\n" for n in range(4))
    source = fill(tmp_path / "set", {f"{n}.jpg": b"" for n in range(4)} | {"t.csv": f"{header}\n{rows}".encode()})
    out = tmp_path / "out" / "raw.zip"
    with pytest.raises(SourceError, match=re.escape(message)):
        ingest(replace(PARAMS, source=str(source), columns=columns), out, out.with_suffix(".csv"), base_dir=tmp_path)


def test_of_two_tables_one_is_chosen_by_its_path(tmp_path: Path) -> None:
    data = table()
    source = fill(tmp_path / "set", {path: b"" for path, *_ in ROWS} | {"a.csv": data, "b.csv": data})
    with pytest.raises(SourceError, match=r"holds 2 tables of labels; give the path of one: .*/a.csv, .*/b.csv"):
        take(source, tmp_path)
    assert take(source / "b.csv", tmp_path)[0].layout == "table b.csv"


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(len(ROWS))))
def test_the_order_of_the_rows_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    folder = tmp_path_factory.mktemp("order")
    lines = table().decode().splitlines(keepends=True)
    data = "".join([lines[0], *(lines[1 + place] for place in order)]).encode()
    _, members = take(fill(folder / "set", {path: path.encode() for path, *_ in ROWS} | {"t.csv": data}), folder)
    check_rows(folder, members, {path: path.encode() for path, *_ in ROWS})
