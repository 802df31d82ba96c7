"""The raw archive: equal members, equal bytes; nothing dangerous is read."""

import os
import re
import stat
import struct
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.data import archive as module
from gender_classifier.data.archive import Archive, split_archive_path, write_archive
from gender_classifier.errors import ArchiveError

MEMBERS = {f"Training/female/{number:03}.jpg": bytes([number]) * number for number in range(200)}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.zip"
    assert write_archive(path, sorted(MEMBERS.items())) == len(MEMBERS)
    return path


@given(
    st.dictionaries(
        st.text("abc/", min_size=1).filter(lambda name: name.strip("/") == name and "//" not in name), st.binary()
    )
)
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
    with pytest.raises(ArchiveError, match="names must be unique and sorted"):
        write_archive(tmp_path / "raw.zip", [(name, b"") for name in names])
    assert not list(tmp_path.iterdir())


def make(path: Path, name: str, *, content: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> Path:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


@given(st.text(st.characters() | st.sampled_from("/\\\0.:aC\ud800\udcff\r\n$%"), max_size=12))
def test_the_writer_accepts_a_name_only_if_the_reader_gives_it_back(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    path = tmp_path_factory.mktemp("a") / "raw.zip"
    try:
        write_archive(path, [(name, b"x")])
    except ArchiveError:
        assert not path.exists()
        return
    with Archive(path) as archive:
        assert (archive.members, archive.read(name)) == ((name,), b"x")


@pytest.mark.parametrize("name", ["Training/a\rb\n$%.jpg", "faces 12:30/a.jpg", "C:a/b.jpg", "é/日.jpg", "...jpg"])
def test_names_are_data(tmp_path: Path, name: str) -> None:
    write_archive(tmp_path / "raw.zip", [(name, b"x")])
    with Archive(tmp_path / "raw.zip") as archive:
        assert archive.members == (name,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../a.jpg", "points outside"),
        ("/a.jpg", "points outside"),
        ("a//b.jpg", "would be read as 'a/b.jpg'"),
        ("./a.jpg", "would be read as 'a.jpg'"),
        ("a/", "would be read as 'a'"),
        ("a\\b.jpg", "would be read as"),
        ("\udcff.jpg", "would be read as '%FF.jpg'"),
        ("a\0b.jpg", "NUL"),
        ("a" * 65_536, "longer than 65,535 bytes"),
    ],
)
def test_the_writer_refuses_what_the_reader_refuses(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ArchiveError, match=re.escape(message)):
        write_archive(tmp_path / "raw.zip", [(name, b"")])
    assert not list(tmp_path.iterdir())


def test_the_writer_refuses_too_large_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 10)
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 15)
    with pytest.raises(ArchiveError, match="'a' would unpack to 11 bytes"):
        write_archive(tmp_path / "raw.zip", [("a", bytes(11))])
    with pytest.raises(ArchiveError, match="would unpack to 20 bytes, more than 15"):
        write_archive(tmp_path / "raw.zip", [("a", bytes(10)), ("b", bytes(10))])
    assert not list(tmp_path.iterdir())


def check(path: Path) -> None:
    with Archive(path) as archive:
        archive.check()


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up.jpg",
        "a/../../up.jpg",
        "a\\..\\..\\up.jpg",
        "C:/windows.jpg",
        "c:\\windows.jpg",
        "//host/share.jpg",
        "\\\\host\\share.jpg",
        "./C:/up.jpg",
    ],
)
def test_names_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "bad.zip", name)
    with pytest.raises(ArchiveError, match="points outside the archive"):
        check(path)
    with Archive(path) as archive, pytest.raises(ArchiveError, match="points outside the archive") as caught:
        archive.read(archive.members[0])
    assert repr(archive.members[0]) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a/../up.jpg", "has '..' in its path"), ("a\\..\\up.jpg", "has '..' in its path"), (".", "has no name")],
)
def test_other_names_are_refused_for_what_they_are(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ArchiveError, match=re.escape(reason)):
        check(make(tmp_path / "bad.zip", name))


def test_a_name_with_a_nul_is_refused_for_that(tmp_path: Path) -> None:
    path = make(tmp_path / "bad.zip", "aXb.jpg")
    path.write_bytes(path.read_bytes().replace(b"aXb.jpg", b"a\0b.jpg"))
    with pytest.raises(ArchiveError, match="'a%00b.jpg' has a NUL"):
        check(path)


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, mode: int) -> None:
    path = make(tmp_path / "bad.zip", "a.jpg", content=b"/etc/passwd", mode=mode | 0o777)
    with pytest.raises(ArchiveError, match="'a.jpg' is a (symbolic link|pipe|device|socket)"):
        check(path)


def pack(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of double names
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_double_members_are_one_if_equal_and_refused_otherwise(tmp_path: Path) -> None:
    path = pack(tmp_path / "two.zip", ("a.jpg", b"1"), ("a.jpg", b"1"), ("b.jpg", b"1"), ("b.jpg", b"2"))
    with Archive(path) as archive:
        assert archive.members == ("a.jpg", "b.jpg")
        assert archive.read("a.jpg") == b"1"
        with pytest.raises(ArchiveError, match="'b.jpg' is in the archive more than once, with different contents"):
            archive.read("b.jpg")


def test_one_bad_member_harms_no_other(tmp_path: Path) -> None:
    with Archive(pack(tmp_path / "mixed.zip", ("../up", b"1"), ("a.jpg", b"2"))) as archive:
        assert archive.read("a.jpg") == b"2"
        archive.check(["a.jpg"])
        with pytest.raises(ArchiveError, match="'../up' points outside"):
            archive.check()


def test_backslashes_of_windows_separate_folders(tmp_path: Path) -> None:
    path = pack(tmp_path / "unix.zip", ("x\\y\\a.jpg", b""), ("x\\y\\", b""), ("x/y/b\\c.jpg", b""))
    with Archive(path) as archive:
        assert archive.members == ("x/y/a.jpg", "x/y/b%5Cc.jpg")
    info = zipfile.ZipInfo("x/y\\a.jpg")
    info.create_system = 0
    with zipfile.ZipFile(tmp_path / "dos.zip", "w") as archive:
        archive.writestr(info, b"")
    with Archive(tmp_path / "dos.zip") as archive:
        assert archive.members == ("x/y/a.jpg",)


def test_empty_parts_of_names_mean_nothing(tmp_path: Path) -> None:
    with Archive(pack(tmp_path / "a.zip", ("./a//b/./c.jpg", b"1"), ("d/./", b""))) as archive:
        assert archive.members == ("a/b/c.jpg",)
        assert archive.read("a/b/c.jpg") == b"1"


def test_a_name_in_an_old_encoding_is_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "old.zip", ("aXb.jpg", b"1"))
    path.write_bytes(path.read_bytes().replace(b"aXb.jpg", b"a\xffb.jpg"))
    with Archive(path) as archive:
        assert [archive.read(name) for name in archive.members] == [b"1"]


def test_a_folder_in_an_archive_is_listed(tmp_path: Path) -> None:
    with Archive(pack(tmp_path / "a.zip", ("x/a.jpg", b""), ("xy/b.jpg", b""), ("c.jpg", b""))) as archive:
        assert archive.list_below("") == {name: name for name in archive.members}
        assert archive.list_below("x") == {"a.jpg": "x/a.jpg"}
        with pytest.raises(ArchiveError, match="has no folder 'z'; at its top are x/, xy/"):
            archive.list_below("z")


def test_a_path_may_go_on_inside_an_archive(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", ("x/a.jpg", b""))
    assert split_archive_path(path / "x" / "y") == (path, "x/y")
    assert split_archive_path(path) == (path, "")
    assert split_archive_path(tmp_path / "none" / "x") == (tmp_path / "none" / "x", "")


def set_method(path: Path, method: int) -> Path:
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(signature) + offset, method)
    path.write_bytes(data)
    return path


def make_deflate64(path: Path, content: bytes) -> Path:
    """Pack as a stored member what Deflate64 makes of it, then say so in the headers."""
    deflater = pytest.importorskip("inflate64").Deflater()
    packed = deflater.deflate(content) + deflater.flush()
    data = bytearray(pack(path, ("a.jpg", packed)).read_bytes())
    for signature, crc, size in ((b"PK\x03\x04", 14, 22), (b"PK\x01\x02", 16, 24)):
        struct.pack_into("<I", data, data.index(signature) + crc, zlib.crc32(content))
        struct.pack_into("<I", data, data.index(signature) + size, len(content))
    path.write_bytes(data)
    return set_method(path, 9)


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 50, bytes(2_000_000)])
def test_deflate64_is_read(tmp_path: Path, content: bytes) -> None:
    with Archive(make_deflate64(tmp_path / "a.zip", content)) as archive:
        archive.check()
        assert archive.read("a.jpg") == content


def test_damaged_deflate64_is_named(tmp_path: Path) -> None:
    path = make_deflate64(tmp_path / "a.zip", bytes(range(256)) * 50)
    whole = path.read_bytes()
    start = whole.index(b"a.jpg") + 5
    for damaged in (
        whole[: start + 20] + b"\xff" * 8 + whole[start + 28 :],
        whole.replace(struct.pack("<I", zlib.crc32(bytes(range(256)) * 50)), b"abcd"),
    ):
        path.write_bytes(damaged)
        with Archive(path) as archive, pytest.raises(ArchiveError, match="'a.jpg' is damaged"):
            archive.read("a.jpg")


def test_a_deflate64_member_that_lies_about_its_size_is_not_unpacked(tmp_path: Path) -> None:
    path = make_deflate64(tmp_path / "a.zip", bytes(50_000_000))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
    path.write_bytes(data)
    tracemalloc.start()
    with Archive(path) as archive, pytest.raises(ArchiveError, match="damaged"):
        archive.read("a.jpg")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25_000_000


def test_deflate64_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = set_method(pack(tmp_path / "a.zip", ("a.jpg", b"x")), 9)
    monkeypatch.setitem(sys.modules, "inflate64", None)
    with pytest.raises(ArchiveError, match=r"compressed with Deflate64, .*pip install inflate64, or unpack"):
        check(path)


@pytest.mark.parametrize(
    ("method", "name"),
    [(12, "bzip2"), (14, "LZMA"), (93, "Zstandard"), (95, "xz"), (98, "PPMd"), (6, "Implode"), (77, "unknown")],
)
def test_other_compressions_are_named(tmp_path: Path, method: int, name: str) -> None:
    path = set_method(pack(tmp_path / "a.zip", ("a.jpg", b"x")), method)
    with pytest.raises(ArchiveError, match=rf"compressed with {name} \(method {method}\), which is not supported"):
        check(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_a_limit_is_not_unpacked(
    tmp_path: Path, method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("a.jpg", bytes(50_000_000))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)  # says that it is small
    path.write_bytes(data)
    assert len(data) < 10_000
    monkeypatch.setattr(module.zipfile.ZipFile, "open", Mock(side_effect=AssertionError("unpacked")))
    with Archive(path) as archive, pytest.raises(ArchiveError, match=r"'a.jpg' is compressed with (bzip2|LZMA) "):
        archive.read("a.jpg")


def test_damaged_deflate_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zip", "a.jpg", content=bytes(range(256)) * 10)
    data = bytearray(path.read_bytes())
    data[44:80] = bytes(36)
    path.write_bytes(data)
    with Archive(path) as archive, pytest.raises(ArchiveError, match="member 'a.jpg' is damaged"):
        archive.read("a.jpg")


def overlap(path: Path, count: int, content: bytes, *, shift: int = 0) -> Path:
    """Write a zip of one compressed block and ``count`` members that have it for their content."""
    make(path, "0000.jpg", content=content)
    data = path.read_bytes()
    directory = data.index(b"PK\1\2")
    entry, end = data[directory : data.index(b"PK\5\6")], data[data.index(b"PK\5\6") :]
    entries = b"".join(
        entry.replace(b"0000.jpg", f"{n:04}.jpg".encode())[:42]
        + struct.pack("<I", n * shift)
        + entry[46:].replace(b"0000", f"{n:04}".encode())
        for n in range(count)
    )
    sizes = struct.pack("<HHII", count, count, len(entries), directory)
    path.write_bytes(data[:directory] + entries + end[:8] + sizes + end[20:])
    return path


@pytest.mark.parametrize("shift", [0, 1, 40])
def test_members_that_share_bytes_are_refused_by_both_names(tmp_path: Path, shift: int) -> None:
    path = overlap(tmp_path / "a.zip", 1000, bytes(60_000_000), shift=shift)
    assert path.stat().st_size < 200_000
    with Archive(path) as archive:
        assert len(archive.members) == 1000
        problems = [archive.find_problem(name) for name in archive.members]
        assert all("shares bytes with " in problem for problem in problems)
        with pytest.raises(ArchiveError, match=r"member '0001.jpg' shares bytes with '0000.jpg'; get the archive"):
            archive.read("0001.jpg")


def test_members_that_reach_into_the_directory_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", ("a.jpg", b"1"), ("b.jpg", b"2" * 100))
    data = bytearray(path.read_bytes())
    struct.pack_into("<II", data, data.rindex(b"PK\1\2") + 20, 5000, 5000)
    path.write_bytes(data)
    with Archive(path) as archive:
        assert archive.read("a.jpg") == b"1"
        with pytest.raises(ArchiveError, match=r"'b.jpg' shares bytes with the archive's directory"):
            archive.read("b.jpg")


def test_neighbours_share_nothing(tmp_path: Path, raw: Path) -> None:
    """With names that UTF-8 and other encodings write at different lengths, and archives behind other data."""
    path = pack(tmp_path / "a.zip", ("é.jpg", b""), ("日.jpg", b""), ("b.jpg", b"1"))
    old = tmp_path / "old.zip"
    old.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    behind = tmp_path / "behind.zip"
    behind.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())
    for one in (path, behind, raw):
        with Archive(one) as archive:
            archive.check()


@pytest.mark.parametrize("zip64", [False, True])
def test_a_directory_too_large_for_memory_is_not_read(tmp_path: Path, zip64: bool) -> None:
    path = pack(tmp_path / "a.zip", ("a.jpg", b"1"))
    data = path.read_bytes()
    end = data.index(b"PK\5\6")
    if zip64:
        record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
        data = data[:end] + record + locator + data[end:]
    else:
        data = data[: end + 12] + struct.pack("<I", 2**31) + data[end + 16 :]
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"its directory has [\d,]+ bytes, more than 134,217,728; split it into"):
        Archive(path)


@pytest.mark.parametrize("other", ["./a.png", "a.png/.", "x//a.png", "x/./a.png"])
def test_two_spellings_of_one_name_are_refused_by_both(tmp_path: Path, other: str) -> None:
    name = "x/a.png" if other.startswith("x") else "a.png"
    with Archive(pack(tmp_path / "a.zip", (name, b"1"), (other, b"1"), ("b.png", b"3"))) as archive:
        assert archive.read("b.png") == b"3"
        both = re.escape(f"{name!r} and {other!r}")
        with pytest.raises(ArchiveError, match=f"is the name of more than one member, {both}; rename one of them"):
            archive.read(name)


def test_contents_of_one_checksum_are_told_apart(tmp_path: Path) -> None:
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    path = pack(tmp_path / "a.zip", ("a.jpg", b"plumless"), ("a.jpg", b"buckeroo"))
    with Archive(path) as archive, pytest.raises(ArchiveError, match="'a.jpg' is in the archive more than once, with"):
        archive.read("a.jpg")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "bad.zip", "a.jpg")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        check(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = make(tmp_path / "bomb.zip", "a.jpg", content=bytes(module.MAX_MEMBER_BYTES + 1))
    assert path.stat().st_size < 100_000
    with pytest.raises(ArchiveError, match="would unpack to 67,108,865 bytes"):
        check(path)
    with Archive(path) as archive, pytest.raises(ArchiveError, match="would unpack to 67,108,865 bytes"):
        archive.read("a.jpg")


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
        check(raw)


def test_files_that_are_no_archives(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file"):
        Archive(tmp_path / "none.zip")
    for name, data in {"empty": b"", "text": b"hello", "cut": raw.read_bytes()[:-30]}.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match="not a whole zip file"):
            Archive(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tar.gz", b"\x1f\x8b\x08", "is a gzip file (.gz, .tar.gz), not a zip; unpack it and give the folder"),
        ("a.zip", b"\x1f\x8b\x08", "is a gzip file"),
        ("a.tar", bytes(257) + b"ustar", "is a tar archive, not a zip; unpack it"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        ("a.rar", b"Rar!\x1a\x07\x01", "is a RAR archive"),
        ("a.zip", b"\n<!DOCTYPE html><title>Log in</title>", "is a web page, not a zip"),
        ("a.zip", b"version https://git-lfs.github.com/spec/v1", "run `git lfs pull`"),
        ("a.zip", b"", "not a whole zip file (it is empty)"),
        ("a.zip", b"PK\x03\x04" + bytes(99), "not a whole zip file (its end is missing, as after an interrupted"),
    ],
)
def test_other_files_are_refused_for_what_they_are(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ArchiveError, match=re.escape(message)) as caught:
        Archive(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(ArchiveError, match="not a regular file"):
        Archive(tmp_path / "a.zip")


def test_a_file_that_must_not_be_opened_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "a.zip", ("a.jpg", b""))
    refuse = Mock(side_effect=PermissionError(13, "Permission denied"))
    monkeypatch.setattr(module.zipfile, "ZipFile", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ArchiveError, match=r"cannot be read \(Permission denied\); check its permissions"):
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
