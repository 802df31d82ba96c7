"""Every file below a folder is listed, or named with what keeps it from being read."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from gender_classifier.data import folders as module
from gender_classifier.data.folders import find_problem, list_files, read_file


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
    write(tmp_path / "elsewhere" / "2.jpg")
    (tmp_path / "set" / "a" / "link.jpg").symlink_to("1.jpg")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "c").symlink_to("b")
    listing = list_files(tmp_path / "set")
    assert listing.files == dict.fromkeys(["a/1.jpg", "a/link.jpg", "b/2.jpg", "c/2.jpg"], "")
    assert (listing.closed, listing.loops) == ({}, [])


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a" / "1.jpg")
    (tmp_path / "set" / "a" / "up").symlink_to("..")
    (tmp_path / "set" / "self").symlink_to(".")
    write(tmp_path / "other" / "2.jpg")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "other").symlink_to(tmp_path / "other")
    listing = list_files(tmp_path / "set")
    assert set(listing.files) == {"a/1.jpg", "other/2.jpg"}
    assert set(listing.loops) == {"a/up", "self", "other/back"}


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
