"""What is named becomes a sorted, endless-ready stream of pictures; what is wrong is one of them and stops nothing."""

from __future__ import annotations

import os
import stat
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from gender_classifier import inputs
from gender_classifier.errors import ArchiveError, InputError
from gender_classifier.inputs import find_pictures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.JPG", "photos/a.png", "photos/notes.txt", "photos/deep/er/c.webp", "photos/.hidden.jpg",
                 "photos/.cache/d.jpg", "photos/album.jpg/e.gif", "empty/readme.md"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(*arguments: str) -> list[str]:
    return [name for name, _ in find_pictures(arguments)]


def errors(*arguments: str) -> dict[str, str]:
    found = {}
    for name, read in find_pictures(arguments):
        try:
            read()
        except (InputError, ArchiveError, OSError) as error:
            found[name] = str(error)
    return found


def test_a_folder_is_searched_to_any_depth_in_order(folder: Path) -> None:
    found = list(find_pictures(["photos"]))
    expected = ["photos/a.png", "photos/album.jpg/e.gif", "photos/b.JPG", "photos/deep/er/c.webp"]
    assert [name for name, _ in found] == [str(Path(name)) for name in expected]
    assert found[0][1]() == b"photos/a.png"
    assert names("./photos/") == [f"./{name}" for name in names("photos")]


def test_a_file_named_itself_needs_no_suffix(folder: Path) -> None:
    assert names("photos/notes.txt", "photos/.hidden.jpg") == ["photos/notes.txt", "photos/.hidden.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["photos/a.png"]),
        ("photos/*", ["photos/a.png", "photos/album.jpg/e.gif", "photos/b.JPG", "photos/deep/er/c.webp"]),
        ("photos/**", ["photos/a.png", "photos/album.jpg/e.gif", "photos/b.JPG", "photos/deep/er/c.webp"]),
        ("**/*.[gw]*", ["photos/album.jpg/e.gif", "photos/deep/er/c.webp"]),
    ],
)
def test_patterns_are_expanded_once(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected


def test_a_file_with_a_pattern_for_a_name_is_that_file(folder: Path) -> None:
    (folder / "photos" / "[1].png").touch()
    assert names("photos/[1].png") == ["photos/[1].png"]


def test_what_leads_to_no_picture_says_so_and_the_others_go_on(folder: Path) -> None:
    assert names("nowhere", "photos/a.png", "*.bmp", "empty") == ["nowhere", "photos/a.png", "*.bmp", "empty"]
    found = errors("nowhere", "photos/a.png", "*.bmp", "empty")
    assert found["nowhere"] == "no such file or folder"
    assert "holds no picture" in found["*.bmp"]
    assert "holds no picture" in found["empty"]
    assert "photos/a.png" not in found


def test_links_are_followed_to_files_and_never_round(folder: Path) -> None:
    photos = folder / "photos"
    (photos / "loop").symlink_to(photos)
    (photos / "loop.jpg").symlink_to(photos)
    (photos / "self.jpg").symlink_to(photos / "self.jpg")
    (photos / "broken.jpg").symlink_to(photos / "gone.jpg")
    (photos / "link.png").symlink_to(photos / "a.png")
    found = names("photos")
    assert len(found) == 7
    assert {"photos/link.png", "photos/broken.jpg", "photos/self.jpg"} < set(found)
    assert set(errors("photos")) == {"photos/broken.jpg", "photos/self.jpg"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_in_a_folder_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "photos" / "pipe.jpg")
    assert "photos/pipe.jpg" not in names("photos")


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(inputs.os, "scandir", refuse)
    assert list(errors("photos")) == ["photos/deep"]
    assert len(names("photos")) == 4


def make_zip(path: Path, *members: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, member.encode())


def test_pictures_of_an_archive_are_read_after_the_listing_is_over(folder: Path) -> None:
    make_zip(folder / "faces.ZIP", "b.jpg", "in/a.png", "notes.txt", "__MACOSX/b.jpg", "in/._a.png")
    found = list(find_pictures(["faces.ZIP", "photos/a.png"]))
    assert [name for name, _ in found] == ["faces.ZIP/b.jpg", "faces.ZIP/in/a.png", "photos/a.png"]
    assert [read() for _, read in found] == [b"b.jpg", b"in/a.png", b"photos/a.png"]


def test_an_archive_that_must_not_be_read_is_refused(folder: Path) -> None:
    make_zip(folder / "evil.zip", "../../a.jpg")
    (folder / "torn.zip").write_bytes(b"PK\x03\x04 and no more")
    make_zip(folder / "texts.zip", "a.txt")
    found = errors("evil.zip", "torn.zip", "texts.zip")
    assert "points outside the archive" in found["evil.zip"]
    assert "not a whole zip file" in found["torn.zip"]
    assert "holds no picture" in found["texts.zip"]


def test_a_huge_file_is_not_read_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 10)
    assert errors("photos/a.png") == {"photos/a.png": "more than 10 bytes, too large for a picture of a face"}


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux")
def test_names_that_are_no_text_are_kept(folder: Path) -> None:
    name = os.fsdecode(b"photos/\xff\xfe.jpg")
    Path(name).write_bytes(b"x")
    assert name in names("photos")


def test_a_large_folder_is_sorted_in_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = folder / "many"
    many.mkdir()
    expected = [f"many/{number:05}.jpg" for number in range(3000)]
    for name in reversed(expected):
        Path(name).touch()
    monkeypatch.setattr(inputs, "_RUN", 100)
    assert names("many") == expected
    peaks = {}
    for run in (100, 10_000):
        monkeypatch.setattr(inputs, "_RUN", run)
        tracemalloc.start()
        for _ in find_pictures(["many"]):
            pass
        peaks[run] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[10_000] > 200_000  # all names at once, about 100 bytes each
    # A run, and a buffer of some 16 KB for each of the 30 files.
    assert peaks[100] < 30 * 25_000


def test_a_device_is_read_no_further_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Path("/dev/zero")
    if not device.exists() or not stat.S_ISCHR(device.stat().st_mode):
        pytest.skip("no endless device here")
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 1000)
    assert list(errors("/dev/zero")) == ["/dev/zero"]
