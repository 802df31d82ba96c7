"""Every file below a folder is listed, or named with what keeps it from being read."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from gender_classifier.data import folders as module
from gender_classifier.data.folders import OUTSIDE, find_problem, list_files, read_file


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refuse_folder(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a folder not be listed, as for a user without the right to: root may list all."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_files_links_and_linked_folders_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a" / "1.jpg")
    write(tmp_path / "set" / "b" / "2.jpg")
    (tmp_path / "set" / "a" / "link.jpg").symlink_to("1.jpg")
    (tmp_path / "set" / "a" / "up.jpg").symlink_to("../b/2.jpg")
    (tmp_path / "set" / "c").symlink_to("d")
    (tmp_path / "set" / "d").symlink_to(tmp_path / "set" / "b")
    (tmp_path / "named").symlink_to("set")
    for folder in ("set", "named", "named/.", "set/a/.."):
        listing = list_files(tmp_path / folder)
        files = ["a/1.jpg", "a/link.jpg", "a/up.jpg", "b/2.jpg", "c/2.jpg", "d/2.jpg"]
        assert listing.files == dict.fromkeys(files, "")
        assert (listing.closed, listing.loops) == ({}, [])
        root = os.path.realpath(tmp_path / folder)
        assert [read_file(tmp_path / folder / name, root) for name in files] == [b"x"] * 6


def test_links_that_lead_out_are_named_and_not_read(tmp_path: Path) -> None:
    """Whatever way they take: directly, in steps, through a folder, up and back, or to a neighbour of a like name."""
    key = write(tmp_path / "home" / "key.pem", b"secret")
    write(tmp_path / "set2" / "x.jpg", b"secret")
    folder = tmp_path / "set"
    write(folder / "1.jpg")
    for name, target in {
        "a.jpg": str(key),
        "b.jpg": "../home/key.pem",
        "c.jpg": "b.jpg",
        "d.jpg": "../set2/x.jpg",
        "e.jpg": "../set/../home/key.pem",
        "f.jpg": "../gone",
        "g.jpg": "sub/key.pem",
        "sub": "../home",
        "twin": "../set2",
        "above": "..",
        "root": "/",
    }.items():
        (folder / name).symlink_to(target)
    listing = list_files(folder)
    assert listing.files == {"1.jpg": ""} | {f"{name}.jpg": OUTSIDE for name in "abcdefg"}
    assert listing.closed == dict.fromkeys(["above", "root", "sub", "twin"], OUTSIDE)
    root = os.path.realpath(folder)
    for name in (*listing.files.keys() - {"1.jpg"}, "sub/key.pem", "../home/key.pem"):
        with pytest.raises(OSError, match="leads out of the folder"):
            read_file(folder / name, root)


def test_a_file_that_is_replaced_after_it_was_listed_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write(tmp_path / "key.pem", b"secret")
    path, root = write(tmp_path / "set" / "1.jpg"), os.path.realpath(tmp_path / "set")

    def swap(_: object) -> str:  # after the last look at the name
        path.unlink(missing_ok=True)
        path.symlink_to(key)
        return ""

    monkeypatch.setattr(module, "find_problem", swap)
    if Path("/proc/self/fd").is_dir():
        with pytest.raises(OSError, match="leads out of the folder"):
            read_file(path, root)

    def swap_for_a_pipe(_: object) -> str:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return ""

    path.unlink()
    write(path)
    monkeypatch.setattr(module, "find_problem", swap_for_a_pipe)
    with pytest.raises(OSError, match="no regular file"):
        read_file(path, root)


def test_a_file_that_grows_after_it_was_listed_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "1.jpg", bytes(11))
    monkeypatch.setattr(module, "find_problem", lambda _: "")
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_file(path)


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a" / "1.jpg")
    (tmp_path / "set" / "a" / "up").symlink_to("..")
    (tmp_path / "set" / "self").symlink_to(".")
    write(tmp_path / "set" / "other" / "2.jpg")
    (tmp_path / "set" / "other" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "third").symlink_to("other")
    listing = list_files(tmp_path / "set")
    assert set(listing.files) == {"a/1.jpg", "other/2.jpg", "third/2.jpg"}
    assert set(listing.loops) == {"a/up", "self", "other/back", "third/back"}


def test_what_is_no_readable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    write(tmp_path / "fine.jpg")
    Path("gone.jpg").symlink_to("nothing")
    Path("round.jpg").symlink_to("round.jpg")
    os.mkfifo("pipe.jpg")
    os.truncate(write(tmp_path / "large.jpg"), 64 * 2**20 + 1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        assert list_files(tmp_path).files == {
            "fine.jpg": "",
            "gone.jpg": "a link to nothing",
            "large.jpg": "67,108,865 bytes, more than 67,108,864",
            "pipe.jpg": "a pipe, not a file",
            "round.jpg": "a link to itself",
            "socket.jpg": "a socket, not a file",
        }
    assert find_problem("/dev/null") == "a device, not a file"
    for name in ("gone.jpg", "pipe.jpg"):
        with pytest.raises(OSError, match="link to nothing|a pipe"):
            read_file(tmp_path / name)
    assert read_file(tmp_path / "fine.jpg") == b"x"


def test_files_and_folders_without_permission_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "1.jpg")
    write(tmp_path / "b" / "2.jpg")
    refuse_folder(monkeypatch, "b")
    monkeypatch.setattr(module.os, "access", lambda path, mode: Path(path).name != "1.jpg")
    listing = list_files(tmp_path)
    assert listing.files == {"a/1.jpg": "Permission denied"}
    assert listing.closed == {"b": "Permission denied"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permissions_of_the_file_system_are_seen(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg").chmod(0)
    write(tmp_path / "b" / "2.jpg").parent.chmod(0)
    try:
        listing = list_files(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
    assert listing.files == {"1.jpg": "Permission denied"}
    assert listing.closed == {"b": "Permission denied"}


def test_any_name_is_listed(tmp_path: Path) -> None:
    names = ["a\\b", "a\rb\n", "$x$", "é"] + ([os.fsdecode(b"\xff")] if os.name == "posix" else [])
    for name in names:
        write(tmp_path / "d" / name)
    assert set(list_files(tmp_path).files) == {f"d/{name}" for name in names}
