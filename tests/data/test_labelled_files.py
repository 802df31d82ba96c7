"""The reader of labelled sources: what it yields, and what each of its rules changes."""

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from gender_classifier.data.labelled_files import open_source
from gender_classifier.data.layouts.class_folders import Rules
from gender_classifier.errors import SourceError

CLASSES = {"cat": ("cat",), "dog": ("dog",), "owl": ("owl",)}
LOOSE = Rules("source", CLASSES, fixed=True, refuses_strays=False, refuses_unreadable=False)
OPEN = replace(LOOSE, classes=None, fixed=False)
NAMES = [f"{split}/{label}/{label}.jpg" for split in ("Training", "Validation") for label in CLASSES]


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_images_have_a_name_a_label_a_split_and_their_bytes(tmp_path: Path) -> None:
    with open_source(str(fill(tmp_path, *NAMES, "a.txt")), LOOSE) as source:
        assert [(image.name, image.label, image.split) for image in source.images] == [
            (name, place % 3, "Training" if place < 3 else "Validation") for place, name in enumerate(NAMES)
        ]
        assert [image.read().decode() for image in source.images] == NAMES
        assert (source.kind, source.ignored) == ("folder", 1)


def test_classes_beside_splits_and_alone_are_in_no_split(tmp_path: Path) -> None:
    for names in (["deep/in/cat/1.jpg"], ["Training/dog/1.jpg", "cat/1.jpg"]):
        folder = fill(tmp_path / str(len(names)), *names)
        with open_source(str(folder), LOOSE) as source:
            assert [(image.name, image.split) for image in source.images] == [
                (name, "Training" if "Training" in name else "") for name in names
            ]


def test_each_rule_refuses_what_is_otherwise_let_through(tmp_path: Path) -> None:
    folder = fill(tmp_path, *NAMES, "cover.jpg")
    (folder / "Training" / "cat" / "gone.jpg").symlink_to("nothing")
    with open_source(str(folder), LOOSE) as source:
        assert len(source.images) == 7
        assert source.remarks == (
            "images outside the class folders, left out (1): cover.jpg",
            "not readable, left out (1): Training/cat/gone.jpg (a link to nothing)",
        )
    for changed, message in (
        (
            {"refuses_strays": True},
            "cover.jpg lies in no class folder; put it into one (cat and dog and owl)",
        ),
        ({"refuses_unreadable": True}, "1 of its files cannot be read: Training/cat/gone.jpg (a link to nothing)"),
    ):
        with pytest.raises(SourceError, match=re.escape(f"source: {folder}: {message}")):
            open_source(str(folder), replace(LOOSE, **changed))


def test_the_top_is_chosen_among_several_data_sets(tmp_path: Path) -> None:
    folder = fill(tmp_path, "cat/1.jpg", "old/cat/1.jpg")
    with pytest.raises(SourceError, match=r"holds 2 data sets; give the path of one: .*/\., .*/old"):
        open_source(str(folder), LOOSE)
    with open_source(f"{folder}/.", LOOSE) as source:
        assert [image.name for image in source.images] == ["cat/1.jpg"]


def test_a_zip_is_known_by_its_content_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.download", "w") as archive:
        archive.writestr("cat/1.jpg", b"1")
    with open_source(str(tmp_path / "set.download"), LOOSE) as source:
        assert (source.kind, source.images[0].read()) == ("zip", b"1")


def test_a_csv_without_splits_has_none(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("path,label\n1.jpg,owl\n")
    with open_source(str(tmp_path / "set.csv"), LOOSE) as source:
        assert [(image.name, image.label, image.split) for image in source.images] == [("1.jpg", 2, "")]
