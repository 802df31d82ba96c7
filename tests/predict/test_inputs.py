"""What is named becomes a sorted, endless-ready stream of images; what is wrong is one of them and stops nothing."""

import os
import stat
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import encode

from gender_classifier.errors import ArchiveError, InputError
from gender_classifier.predict import inputs
from gender_classifier.predict.inputs import find_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.JPG", "photos/a.png", "photos/notes.txt", "photos/deep/er/c.webp", "photos/.hidden.jpg",
                 "photos/.cache/d.jpg", "photos/album.jpg/e.gif", "empty/readme.md"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def make_file(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def names(*arguments: str) -> list[str]:
    return [name for name, _ in find_images(arguments)]


def errors(*arguments: str) -> dict[str, str]:
    found = {}
    for name, read in find_images(arguments):
        try:
            read()
        except (InputError, ArchiveError, OSError) as error:
            found[name] = str(error)
    return found


def test_a_folder_is_searched_to_any_depth_in_order(folder: Path) -> None:
    found = list(find_images(["photos"]))
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
    assert "holds no image" in found["*.bmp"]
    assert "holds no image" in found["empty"]
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


def test_links_to_folders_are_followed(folder: Path) -> None:
    photos = folder / "photos"
    (photos / "linked").symlink_to(photos / ".elsewhere")
    make_file(photos / ".elsewhere" / "f.jpg")
    (photos / ".elsewhere" / "back").symlink_to(photos)
    (photos / ".elsewhere" / "self").symlink_to(".")
    assert names("photos")[-1] == "photos/linked/f.jpg"
    assert len(names("photos")) == 5
    assert errors("photos") == {}


@pytest.mark.parametrize("argument", ["photos", "photos/*", "photos/**", "photos/deep/../*", "pho*/../photos"])
def test_links_out_of_a_folder_are_named_and_not_read(folder: Path, argument: str) -> None:
    make_file(folder / "secret" / "s.jpg", b"secret")
    (folder / "photos" / "linked").symlink_to("../secret")
    (folder / "photos" / "key.jpg").symlink_to(folder / "secret" / "s.jpg")
    (folder / "photos" / "deep" / "chain.png").symlink_to("../key.jpg")
    for name in ("other.txt", "README"):
        (folder / "photos" / name).symlink_to("../secret/s.jpg")
    found = errors(argument)
    if argument.startswith("pho*"):  # what the pattern may reach is the folder around
        assert found == {}
        return
    last = {name.rpartition("/")[2] for name in found}
    assert {"linked", "key.jpg", "chain.png"} <= last
    assert not {"other.txt", "README"} & last
    assert all("a link that leads out of the folder" in error for error in found.values())
    assert not [name for name in names(argument) if name.startswith("photos/linked/")]
    assert not [name for name, read in find_images([argument]) if name not in found and read() == b"secret"]


def test_a_link_that_is_named_by_itself_is_followed(folder: Path) -> None:
    make_file(folder / "elsewhere" / "f.jpg")
    (folder / "photos" / "linked").symlink_to("../elsewhere")
    (folder / "photos" / "f.jpg").symlink_to("../elsewhere/f.jpg")
    assert errors("photos/linked", "photos/f.jpg", "photos/linked/*") == {}
    assert names("photos/linked", "photos/f.jpg") == ["photos/linked/f.jpg", "photos/f.jpg"]


def test_a_file_that_becomes_a_link_or_a_pipe_after_the_listing_is_not_read(folder: Path) -> None:
    make_file(folder / "secret")
    readers = dict(find_images(["photos"]))
    for name, replace in {
        "photos/a.png": lambda path: path.symlink_to(folder / "secret"),
        "photos/b.JPG": os.mkfifo,
    }.items():
        Path(name).unlink()
        replace(Path(name))
        with pytest.raises((OSError, InputError)):
            readers[name]()


@pytest.mark.parametrize("argument", ["photos", "photos/*", "photos/**", "photos/deep/../*"])
def test_links_that_lead_nowhere_are_named(folder: Path, argument: str) -> None:
    for name in ("album", "gone.jpg", "lost.txt", ".hidden"):
        (folder / "photos" / name).symlink_to("nothing")
    found = {name.rpartition("/")[2]: error for name, error in errors(argument).items()}
    assert set(found) == {"album", "gone.jpg"}
    assert "a link to nothing" in found["album"]


def test_folders_that_a_pattern_finds_at_any_depth_are_searched(folder: Path) -> None:
    (folder / "photos" / "er.jpg").mkdir()
    make_file(folder / "photos" / "er.jpg" / "er" / "g.jpg")
    assert names("**/er") == ["photos/deep/er/c.webp", "photos/er.jpg/er/g.jpg"]
    assert names("**/er*") == ["photos/deep/er/c.webp", "photos/er.jpg/er/g.jpg"]


@pytest.mark.parametrize("pattern", ["photos/**", "**/*.*", "photos/**/*.*", "./**"])
def test_patterns_go_round_no_loop(folder: Path, pattern: str) -> None:
    before = names(pattern)
    (folder / "photos" / "loop").symlink_to(".")
    (folder / "photos" / "deep" / "up").symlink_to("..")
    assert names(pattern) == before
    assert names("photos/../photos/**") == [f"photos/../{name}" for name in names("photos/**")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("argument", ["photos", "photos/*", "photos/**"])
def test_a_pipe_in_a_folder_is_named_and_not_waited_for(folder: Path, argument: str) -> None:
    os.mkfifo(folder / "photos" / "pipe.jpg")
    assert "a pipe, not a file" in errors(argument)["photos/pipe.jpg"]


@pytest.mark.parametrize(
    "argument", ["photos", "photos/*", "photos/IMG*", "photos/**", "faces.zip", "photos/IMG_3.HEIC"]
)
def test_formats_that_are_not_decoded_are_named(folder: Path, argument: str) -> None:
    found = {"IMG_2.avif": "AVIF", "IMG_3.HEIC": "HEIC", "IMG_4.NEF": "camera raw", "IMG_5.jxl": "JPEG XL"}
    for name in found:
        make_file(folder / "photos" / name, b"II*\0")
    make_file(folder / "photos" / "IMG_6.heic", encode(np.zeros((4, 4, 3), np.uint8)))  # a JPEG, whatever its name
    with zipfile.ZipFile(folder / "faces.zip", "w") as archive:
        for name in (*found, "IMG_6.heic"):
            archive.write(folder / "photos" / name, name)
    reasons = {name.rpartition("/")[2]: reason for name, reason in errors(argument).items()}
    expected = {name: f"{kind} images are not decoded; convert it to JPEG or PNG" for name, kind in found.items()}
    assert reasons == {name: expected[name] for name in reasons}
    assert set(reasons) == ({"IMG_3.HEIC"} if argument.endswith("HEIC") else set(found))


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(inputs.os, "scandir", refuse)
    assert list(errors("photos")) == ["photos/deep"]
    assert len(names("photos")) == 4
    for pattern in ("photos/**", "photos/deep/*", "photos/*/*/*.webp", "photos/**/er/*"):
        assert list(errors(pattern)) == ["photos/deep"]


def test_a_path_that_cannot_be_asked_for_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat_file = os.stat

    def refuse(path: object, **options: object) -> object:
        if path == "closed/a.jpg":
            raise PermissionError(13, "Permission denied", path)
        return stat_file(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(inputs.os, "stat", refuse)
    assert "Permission denied" in errors("closed/a.jpg")["closed/a.jpg"]


def test_a_closed_standard_input_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert errors("-") == {"-": "standard input is closed; give a file, or pipe one in"}


def make_zip(path: Path, *members: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, member.encode())


def test_pictures_of_an_archive_are_read_after_the_listing_is_over(folder: Path) -> None:
    make_zip(folder / "faces.ZIP", "b.jpg", "in/a.png", "notes.txt", "__MACOSX/b.jpg", "in/._a.png")
    found = list(find_images(["faces.ZIP", "photos/a.png"]))
    assert [name for name, _ in found] == ["faces.ZIP/b.jpg", "faces.ZIP/in/a.png", "photos/a.png"]
    assert [read() for _, read in found] == [b"b.jpg", b"in/a.png", b"photos/a.png"]


def test_an_archive_that_must_not_be_read_is_refused(folder: Path) -> None:
    make_zip(folder / "evil.zip", "../../a.jpg")
    (folder / "torn.zip").write_bytes(b"PK\x03\x04 and no more")
    make_zip(folder / "texts.zip", "a.txt")
    found = errors("evil.zip", "torn.zip", "texts.zip")
    assert "points outside the archive" in found["evil.zip/../../a.jpg"]
    assert found["torn.zip"].startswith("not a whole zip file")  # the caller names it
    assert errors("./torn.zip")["./torn.zip"].startswith("not a whole zip file")
    assert "holds no image" in found["texts.zip"]


def test_a_path_goes_on_inside_an_archive(folder: Path) -> None:
    make_zip(folder / "faces.zip", "in/a.png", "in/more/b.png", "c.png")
    assert names("faces.zip/in") == ["faces.zip/in/a.png", "faces.zip/in/more/b.png"]
    ((name, read),) = find_images(["faces.zip/in/more/b.png"])
    assert (name, read()) == ("faces.zip/in/more/b.png", b"in/more/b.png")
    assert errors("faces.zip/out")["faces.zip"].startswith("has no folder 'out'; at its top are in/")


@pytest.mark.parametrize("argument", ["set.tar.gz", "set.*", "set.tar.g*"])
def test_other_archives_are_named_as_such(folder: Path, argument: str) -> None:
    make_file(folder / "set.tar.gz")
    assert errors(argument) == {"set.tar.gz": "archives of this kind (.gz) are not read; unpack it, give the folder"}


def test_one_unreadable_member_harms_no_other(folder: Path) -> None:
    make_zip(folder / "mixed.zip", "../a.jpg", "b.jpg")
    assert names("mixed.zip") == ["mixed.zip/../a.jpg", "mixed.zip/b.jpg"]
    assert list(errors("mixed.zip")) == ["mixed.zip/../a.jpg"]


def test_a_huge_file_is_not_read_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 10)
    assert errors("photos/a.png") == {"photos/a.png": "more than 10 bytes, too large for an image of a face"}


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
        for _ in find_images(["many"]):
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
