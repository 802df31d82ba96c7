"""The raw archive: equal members, equal bytes; nothing dangerous is read."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier import archive as module
from gender_classifier.archive import Archive, write_archive
from gender_classifier.errors import ArchiveError

MEMBERS = {f"Training/female/{number:03}.jpg": bytes([number]) * number for number in range(200)}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.zip"
    assert write_archive(path, sorted(MEMBERS.items())) == len(MEMBERS)
    return path


@given(st.dictionaries(st.text("abc/", min_size=1).filter(lambda name: name.strip("/") == name), st.binary()))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("a")
    write_archive(folder / "one.zip", sorted(members.items()))
    write_archive(folder / "two.zip", sorted(members.items()))
    assert (folder / "one.zip").read_bytes() == (folder / "two.zip").read_bytes()
    with Archive(folder / "one.zip") as archive:
        assert {name: archive.read(name) for name in archive.members} == members


def test_members_are_stored_with_one_date(raw: Path) -> None:
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"]])
def test_unsorted_and_double_names_are_refused_and_leave_nothing(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ArchiveError, match="must rise"):
        write_archive(tmp_path / "raw.zip", [(name, b"") for name in names])
    assert not list(tmp_path.iterdir())


def make(path: Path, name: str, *, content: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> Path:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up.jpg",
        "a/../../up.jpg",
        "C:/windows.jpg",
        "a\\..\\up.jpg",
        "//host/share.jpg",
        "./C:/up.jpg",
        ".",
    ],
)
def test_names_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="points outside the archive") as caught:
        Archive(make(tmp_path / "bad.zip", name))
    assert repr(name) in str(caught.value)


def test_links_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "bad.zip", "a.jpg", content=b"/etc/passwd", mode=stat.S_IFLNK | 0o777)
    with pytest.raises(ArchiveError, match="symbolic link"):
        Archive(path)


def test_double_members_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.jpg", b"1")
        archive.writestr("a.jpg", b"2")
    with pytest.raises(ArchiveError, match="stands in it twice"):
        Archive(tmp_path / "bad.zip")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "bad.zip", "a.jpg")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        Archive(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = make(tmp_path / "bomb.zip", "a.jpg", content=bytes(module.MAX_MEMBER_BYTES + 1))
    assert path.stat().st_size < 100_000
    with pytest.raises(ArchiveError, match="would unpack to 67,108,865 bytes"):
        Archive(path)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "lie.zip", "a.jpg", content=bytes(1_000_000))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
    path.write_bytes(data)
    with Archive(path) as archive, pytest.raises(ArchiveError, match=r"damaged|instead of"):
        archive.read("a.jpg")


def test_a_total_above_the_limit_is_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(ArchiveError, match="more than 1,000"):
        Archive(raw)


def test_files_that_are_no_archives(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file"):
        Archive(tmp_path / "none.zip")
    for name, data in {"empty": b"", "text": b"hello", "cut": raw.read_bytes()[:-30]}.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match="not a whole zip file"):
            Archive(path)


def test_damaged_and_absent_members_are_named(raw: Path) -> None:
    data = bytearray(raw.read_bytes())
    data[data.index(b"199.jpg") + 7 + 50] ^= 0xFF
    raw.write_bytes(data)
    with Archive(raw) as archive:
        assert archive.read("Training/female/198.jpg") == MEMBERS["Training/female/198.jpg"]
        with pytest.raises(ArchiveError, match=r"'Training/female/199.jpg' is damaged"):
            archive.read("Training/female/199.jpg")
        with pytest.raises(ArchiveError, match="has no member 'other.jpg'"):
            archive.read("other.jpg")
