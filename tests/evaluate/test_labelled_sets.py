"""Further labelled sets: every layout, what is left out and why, the table by attribute."""

import csv
import hashlib
import io
import os
import re
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_pixels, encode, picture
from matplotlib.figure import Figure
from test_folders import refuse_folder

from gender_classifier.common.figures import save_figure
from gender_classifier.common.files import write_csv
from gender_classifier.data.images import Crop
from gender_classifier.data.labelled_pixels import Reading, list_unreadable, read_batches
from gender_classifier.errors import ArchiveError, DataError, SourceError
from gender_classifier.evaluate.extra.attributes import attribute_columns, flatten_row
from gender_classifier.evaluate.extra.sets import (
    ScoredSet,
    describe_set,
    extra_columns,
    list_predictions,
    open_labelled_set,
    prediction_columns,
    score_set,
)
from gender_classifier.evaluate.figures import attribute_table
from gender_classifier.metrics.scores import wilson_interval

CLASSES = ("female", "male")
PICTURES = [picture(seed, 40, 50) for seed in range(12)]


def write_files(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURES[number % len(PICTURES)])
    return folder


def write_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, PICTURES[number])
    return path


def listed(path: Path) -> list[tuple[str, int]]:
    with open_labelled_set("new", str(path), CLASSES) as labelled:
        return [(image.name, image.label) for image in labelled.images]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    "names",
    [
        ("female/a.jpg", "male/b.jpg"),
        ("Training/female/a.jpg", "Validation/male/b.jpg"),
        ("faces/female/a.jpg", "faces/male/b.jpg"),
        ("faces/Validation/female/a.jpg", "faces/Validation/male/b.jpg"),
        ("Women/a.jpg", "men/more/b.jpg"),
        ("Test/girl/a.jpg", "train/M/deep/er/b.jpg"),
    ],
)
def test_layouts(tmp_path: Path, kind: str, names: tuple[str, ...]) -> None:
    clutter = ("__MACOSX/._a.jpg", "female/.DS_Store")
    path = (
        write_files(tmp_path, *names, *clutter)
        if kind == "folder"
        else write_zip(tmp_path / "set.ZIP", *names, *clutter)
    )
    assert listed(path) == [(names[0], 0), (names[1], 1)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("female/a.jpg", "other/b.jpg"),
            "other/b.jpg lies in a class folder 'other'; the classes are female and male, rename or remove that folder",
        ),
        (("female/a.jpg", "b.jpg"), "b.jpg lies in no class folder; put it into one (female and male)"),
        (("Other/female/a.jpg", "Validation/male/b.jpg"), "Other/female/a.jpg lies in no class folder"),
        (("a/b/female/a.jpg", "a/b/male/b.jpg", "a/c.jpg"), "a/c.jpg lies outside a/b/, which has the class folders"),
        (("one/male/a.jpg", "two/male/b.jpg"), "holds 2 data sets; give the path of one: "),
        (
            ("a.jpg",),
            "it must hold female, male, with images, these at the top or in split folders such as train and test, and holds a.jpg",
        ),
        ((".hidden",), "is no data set of this layout"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(SourceError, match=re.escape(message)) as caught:
        listed(write_files(tmp_path / "set", *names))
    assert str(caught.value).startswith("evaluate.extra.new: ")
    assert "\n" not in str(caught.value)


def test_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder or file"):
        listed(tmp_path / "nowhere")
    (tmp_path / "set.txt").write_text("x")
    with pytest.raises(SourceError, match="is neither a folder nor a .zip nor a .csv"):
        listed(tmp_path / "set.txt")
    (tmp_path / "set.zip").write_text("x")
    with pytest.raises(ArchiveError, match="not a whole zip"):
        listed(tmp_path / "set.zip")


@pytest.mark.parametrize("name", ["set.tar.gz", "set.7z", "set.zip"])
def test_other_archives_are_refused_by_their_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ArchiveError, match="is a gzip file .*; unpack it and give the folder"):
        listed(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set.csv")
    with pytest.raises(SourceError, match="neither a folder nor a regular file"):
        listed(tmp_path / "set.csv")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_bystanders_are_ignored_and_counted(tmp_path: Path, kind: str) -> None:
    names = (
        "x/female/a.jpg",
        "x/male/b.jpg",
        "README.txt",
        "x/female/more/notes.md",
        "LICENSE",
        "male/Icon\r",
        "c.mp4",
    )
    path = write_files(tmp_path / "set", *names) if kind == "folder" else write_zip(tmp_path / "set.zip", *names)
    assert listed(path) == [("x/female/a.jpg", 0), ("x/male/b.jpg", 1)]
    with open_labelled_set("new", str(path), CLASSES) as labelled:
        assert labelled.ignored == 5


def test_a_set_in_a_folder_of_a_zip_is_named_by_a_path(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", "one/female/a.jpg", "one/male/b.jpg", "two/female/a.jpg", "two/male/b.jpg")
    assert listed(path / "two") == [("female/a.jpg", 0), ("male/b.jpg", 1)]
    with pytest.raises(ArchiveError, match="has no folder 'three'; at its top are one/, two/"):
        listed(path / "three")


def test_links_that_lead_out_of_a_set_are_counted_and_not_read(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", *(f"{name}/{n}.jpg" for name in CLASSES for n in range(30)))
    write_files(tmp_path / "elsewhere", "a.jpg")
    (folder / "male" / "a.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    scored = score(folder, wrong=set())
    assert scored.reading.count() == {"missing or damaged file": 1, "ok": 60}
    (folder / "female" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"female/more \(a link that leads out of the folder\)"):
        score(folder, wrong=set())


def test_linked_folders_are_followed_and_odd_files_are_counted_when_read(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", *(f"female/{number}.jpg" for number in range(30)))
    write_files(folder / ".elsewhere", *(f"{number}.jpg" for number in range(30)))
    (folder / "male").symlink_to(".elsewhere")
    (folder / "male" / "gone.jpg").symlink_to("nothing")
    os.mkfifo(folder / "female" / "pipe.jpg")
    scored = score(folder, wrong=set())
    assert describe_set(scored, "", CLASSES)["left_out"] == {"missing or damaged file": 2}
    rows = list(list_predictions(scored, CLASSES))
    assert {row[0] for row in rows if row[1] != "ok"} == {"male/gone.jpg", "female/pipe.jpg"}
    assert list_unreadable(scored.labelled, scored.reading) == "female/pipe.jpg, male/gone.jpg"


def test_formats_that_are_not_decoded_are_named(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", "female/a.jpg", "female/b.heic", "male/c.jpg")  # b is a JPEG all the same
    (folder / "male" / "d.dng").write_bytes(encode(draw_pixels(1), "TIFF"))
    (folder / "male" / "e.avif").write_bytes(b"\0\0\0\x18ftypavif")
    message = "2 not_an_image (male/d.dng, male/e.avif); replace or remove them"
    with pytest.raises(DataError, match=re.escape(message)):
        score(folder)


def test_a_folder_that_cannot_be_entered_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path / "set", "female/a.jpg", "male/b.jpg")
    refuse_folder(monkeypatch, "male")
    with pytest.raises(
        SourceError, match=r"^evaluate.extra.new: .*1 of its folders cannot be read: male .Permission denied"
    ):
        listed(folder)


def test_any_name_is_scored_and_written(tmp_path: Path) -> None:
    names = ["a\\b.jpg", "c\rd\n$.jpg"] + ([os.fsdecode(b"\xff.jpg")] if sys.platform == "linux" else [])
    folder = write_files(tmp_path / "set", "male/1.jpg", *(f"female/{name}" for name in names))
    expected = {"female/a%5Cb.jpg", "female/c\rd\n$.jpg", "male/1.jpg"}
    expected |= {"female/%FF.jpg"} if sys.platform == "linux" else set()
    assert {name for name, _ in listed(folder)} == expected
    scored = score(folder)
    write_csv(tmp_path / "extra.csv", prediction_columns(CLASSES), list_predictions(scored, CLASSES))
    assert len(scored.rows) == len(expected)
    write_files(folder, "female/a%5Cb.jpg")
    with pytest.raises(SourceError, match=re.escape("would both become female/a%5Cb.jpg; rename one of them")):
        listed(folder)


def test_a_table_of_windows_names_files_with_backslashes(tmp_path: Path) -> None:
    write_files(tmp_path, "x/a.jpg", "x\\b.jpg")
    path = write_table(tmp_path, "path,label\nx\\a.jpg,male\nx\\b.jpg,female\n")
    with open_labelled_set("new", str(path), CLASSES) as labelled:
        assert [(one.name, one.read()) for one in labelled.images] == [
            ("x/a.jpg", PICTURES[0]),
            ("x%5Cb.jpg", PICTURES[1]),
        ]


def write_table(folder: Path, text: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "set.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_gives_paths_labels_and_attributes(tmp_path: Path) -> None:
    write_files(tmp_path, "x/a.jpg", "b.jpg")
    path = write_table(
        tmp_path, b"\xef\xbb\xbflabel,age_group,path,light\r\nmale,60+,x/a.jpg,\r\nfemale,0-9,b.jpg,dim\r\n"
    )
    with open_labelled_set("new", str(path), CLASSES) as labelled:
        assert labelled.attributes == ("age_group", "light")
        assert [(one.name, one.label, one.attributes) for one in labelled.images] == [
            ("x/a.jpg", 1, ("60+", "")),
            ("b.jpg", 0, ("0-9", "dim")),
        ]
        assert labelled.images[0].read() == PICTURES[0]


def test_a_column_with_too_many_values_is_no_attribute(tmp_path: Path) -> None:
    rows = "".join(f"{number}.jpg,male,{number},{number % 3}\n" for number in range(60))
    path = write_table(tmp_path, "path,label,person,light\n" + rows)
    with open_labelled_set("new", str(path), CLASSES) as labelled:
        assert (labelled.attributes, labelled.left_out) == (("light",), ("person",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 names the columns ''; it needs path and label"),
        ("path,sort\na.jpg,male\n", "line 1 names the columns 'path,sort'"),
        ("path,label,age,age\n", "line 1 names the columns 'path,label,age,age'"),
        ("path,label,\na.jpg,male,\n", "line 1 names the columns"),
        ("path,label\n", "holds no row"),
        ("path,label\na.jpg,child\n", "line 2 has the label 'child'; the labels are female and male"),
        ("path,label\na.jpg,male\na.jpg,female\n", "line 3 lists a.jpg, as line 2 does"),
        ("path,label\na.jpg\n", "line 2 has more or fewer cells"),
        ("path,label\na.jpg,male,60\n", "line 2 has more or fewer cells"),
        ("path,label\n,male\n", "line 2 has the path ''"),
        (b"path,label\n\xff\xfe,male\n", "not a readable CSV file in UTF-8"),
        ('path,label\n"a.jpg,male\n', "not a readable CSV file in UTF-8"),
    ],
)
def test_bad_tables_are_refused_by_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(SourceError, match=re.escape(message)) as caught:
        listed(write_table(tmp_path, text))
    assert "\n" not in str(caught.value)


def oracle(wrong: set[int] = frozenset()):  # type: ignore[no-untyped-def]
    """Return a model that says what it is told: label by the order of the calls, but for the places in ``wrong``."""
    place = 0

    def predict(images: np.ndarray) -> np.ndarray:
        nonlocal place
        labels = [int((place + number) % 2 == 1) ^ (place + number in wrong) for number in range(len(images))]
        place += len(images)
        return np.eye(2)[labels] * 3

    return predict


def score(path: Path, wrong: set[int] = frozenset(), seen: dict[str, str] | None = None) -> ScoredSet:  # type: ignore[assignment]
    with open_labelled_set("new", str(path), CLASSES) as labelled:
        return score_set(
            labelled, oracle(wrong), CLASSES, size=64, max_pixels=10**6, seen=seen or {}, num_bins=15
        )  # fmt: skip


def test_wide_images_are_scored_as_they_are_used(tmp_path: Path) -> None:
    shown: list[np.ndarray] = []

    def predict(images: np.ndarray) -> np.ndarray:
        shown.append(images)
        return np.eye(2)

    for border in (0, 20):
        for label, seed in (("female", 1), ("male", 2)):
            path = tmp_path / str(border) / label / "a.png"
            path.parent.mkdir(parents=True)
            sides = ((0, 0), (border, border), (0, 0))
            path.write_bytes(encode(np.pad(draw_pixels(seed, 40, 40), sides), "PNG"))
        with open_labelled_set("new", str(tmp_path / str(border)), CLASSES) as labelled:
            score_set(
                labelled, predict, CLASSES, size=32, max_pixels=10**6, seen={}, num_bins=15, crop=Crop(1.5, 1.0)
            )  # fmt: skip
    np.testing.assert_array_equal(shown[1], shown[0])


def write_people(folder: Path, count: int = 40, **replaced: bytes) -> Path:
    """Write female and male in turn, the first half young."""
    folder.mkdir(exist_ok=True)
    rows = ["path,label,age"]
    for number in range(count):
        data = replaced.get(f"n{number}", picture(number, 40, 50))
        (folder / f"{number:03}.jpg").write_bytes(data)
        rows.append(f"{number:03}.jpg,{CLASSES[number % 2]},{'young' if number < count // 2 else 'old'}")
    return write_table(folder, "\n".join(rows) + "\n")


def test_figures_and_the_table_by_attribute(tmp_path: Path) -> None:
    scored = score(write_people(tmp_path), wrong={0, 2, 21})
    assert scored.report.metrics["accuracy"] == 37 / 40
    everything, old, young = scored.by_attribute.rows
    assert (everything.attribute, everything.value, everything.n, everything.accuracy) == ("all", "", 40, 37 / 40)
    assert (old.attribute, old.value, old.n, old.accuracy) == ("age", "old", 20, 19 / 20)
    assert (young.value, young.accuracy) == ("young", 18 / 20)
    assert (young.accuracy_low, young.accuracy_high) == wilson_interval(18, 20)
    assert young.recalls == ((10, 0.8, *wilson_interval(8, 10)), (10, 1.0, *wilson_interval(10, 10)))
    columns = dict(zip(attribute_columns(CLASSES), flatten_row(young), strict=True))
    assert (columns["n_female"], columns["recall_female"], columns["recall_male"]) == (10, "0.800000", "1.000000")
    rows = [dict(zip(extra_columns(CLASSES), row, strict=True)) for row in list_predictions(scored, CLASSES)]
    assert [row["path"] for row in rows if row["correct"] == 0] == ["000.jpg", "002.jpg", "021.jpg"]
    described = describe_set(scored, "set.csv", CLASSES)
    assert (described["num_images"], described["num_scored"], described["left_out"]) == (40, 40, {})
    assert described["confusion"]["female"] == {"female": 18, "male": 2}


def test_a_class_absent_from_a_value_has_no_recall(tmp_path: Path) -> None:
    path = write_people(tmp_path, 8)
    path.write_text(path.read_text().replace("002.jpg,female,young", "002.jpg,female,child"))
    child = next(row for row in score(path).by_attribute.rows if row.value == "child")
    assert child.recalls[1] == (0, None, None, None)
    assert flatten_row(child)[-4:] == [0, "", "", ""]


def test_seen_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_people(tmp_path)
    seen = {hashlib.sha256(picture(number, 40, 50)).hexdigest(): split for number, split in ((3, "train"), (6, "val"))}
    scored = score(path, seen=seen)
    assert describe_set(scored, "", CLASSES)["left_out"] == {"seen in train": 1, "seen in val": 1}
    assert set(range(40)) - set(scored.rows.tolist()) == {3, 6}
    row = list(list_predictions(scored, CLASSES))[3]
    assert row == ["003.jpg", "seen in train", "male", "", "", "", ""]
    every = {hashlib.sha256((tmp_path / f"{number:03}.jpg").read_bytes()).hexdigest(): "train" for number in range(40)}
    with pytest.raises(DataError, match="none of its 40 images is left to score: 40 seen in train"):
        score(path, seen=every)


def test_few_unreadable_pictures_are_counted_and_many_refused(tmp_path: Path) -> None:
    scored = score(write_people(tmp_path / "few", n1=b"", n2=b"text"))
    assert describe_set(scored, "", CLASSES)["left_out"] == {"empty": 1, "not_an_image": 1}
    path = write_people(tmp_path / "many", n1=b"", n2=PICTURES[2][:300])
    (tmp_path / "many" / "004.jpg").unlink()
    message = "3 of 40 images cannot be read (7.50%), more than the tolerated 5%: 1 empty, 1 missing or damaged file, 1 unreadable"
    with pytest.raises(DataError, match=re.escape(message)):
        score(path)


def test_in_a_set_of_one_class_the_metrics_of_the_other_are_left_out(tmp_path: Path) -> None:
    metrics = score(write_files(tmp_path / "set", "female/a.jpg", "female/b.jpg")).report.metrics
    assert {"accuracy", "recall_female", "loss", "ece"} <= set(metrics)
    assert metrics["balanced_accuracy"] == metrics["recall_female"] == metrics["accuracy"]
    assert not {"recall_male", "precision_male", "roc_auc"} & set(metrics)


def read(path: Path) -> tuple[str, int]:
    reading = Reading()
    with open_labelled_set("new", str(path), CLASSES) as labelled:
        largest = max(len(rows) for rows, _ in read_batches(labelled, reading, size=64, max_pixels=10**6, seen={}))
    return reading.digest, largest


def test_the_digest_changes_with_content_label_and_attribute_alone(tmp_path: Path) -> None:
    path = write_people(tmp_path, 8)
    digest, _ = read(path)
    assert read(path)[0] == digest
    text = path.read_text()
    for changed in (text.replace("young", "child", 1), text.replace("001.jpg,male", "001.jpg,female")):
        path.write_text(changed)
        assert read(path)[0] != digest
    path.write_text(text)
    (tmp_path / "003.jpg").write_bytes(PICTURES[0])
    assert read(path)[0] != digest


def test_one_batch_is_in_memory_at_a_time(tmp_path: Path) -> None:
    names = "".join(f"{number}.jpg,male\n" for number in range(600))
    path = write_table(tmp_path, "path,label\n" + names)
    for number in range(600):
        (tmp_path / f"{number}.jpg").write_bytes(PICTURES[0])
    assert read(path)[1] <= 256


def test_the_picture_of_the_table(tmp_path: Path) -> None:
    rows = score(write_people(tmp_path), wrong={0, 2, 21}).by_attribute.rows
    figure = attribute_table([asdict(row) for row in rows], CLASSES, "Further set new")
    assert isinstance(figure, Figure)
    axes = figure.axes[0]
    assert axes.get_title() == "Further set new, by attribute (95 % intervals)"
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "all  (n 40)",
        "age: old  (n 20)",
        "age: young  (n 20)",
    ]
    save_figure(figure, tmp_path / "table.png")


def test_csv_cells_survive_a_round_trip(tmp_path: Path) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(flatten_row(score(write_people(tmp_path)).by_attribute.rows[0]))
    assert next(csv.reader(io.StringIO(buffer.getvalue())))[:3] == ["all", "", "40"]
