"""The files below a folder, with all that cannot be read, by name."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from gender_classifier.data.archive import MAX_MEMBER_BYTES

_TYPES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip


@dataclass
class Listing:
    """What lies below a folder, each under its path from there, with ``/`` between the parts.

    Attributes:
        files: regular files, links to such included, and why one cannot be read; an empty text if it can.
        closed: folders that cannot be listed, and why.
        loops: links to a folder that contains them; what is there has been listed.
    """

    files: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    loops: list[str] = field(default_factory=list)


def list_files(folder: Path) -> Listing:
    """List every file below ``folder``, to any depth; links to folders are followed."""
    listing = Listing()
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        name, above = waiting.pop()
        try:
            within = above | {identify(folder / name)}
            with os.scandir(folder / name) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            listing.closed[name or "."] = _explain(error)
            continue
        for entry in entries:
            path = f"{name}/{entry.name}" if name else entry.name
            if not is_folder(entry):
                listing.files[path] = find_problem(entry.path)
            elif entry.is_symlink() and identify(entry.path) in within:
                listing.loops.append(path)
            else:
                waiting.append((path, within))
    return listing


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return True for a folder or a link to one; False also for what cannot be asked."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def identify(path: str | Path) -> tuple[int, int]:
    """Return what tells one folder from all others on this machine, whatever it is called."""
    found = os.stat(path)  # noqa: PTH116  of a text too
    return found.st_dev, found.st_ino


def find_problem(path: str | Path) -> str:
    """Return why ``path`` cannot be read as a file, or an empty text; it is not opened, so a pipe is not waited for."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):  # noqa: PTH114
            return "a link to nothing" if error.errno != errno.ELOOP else "a link to itself"
        return _explain(error)
    kinds = [kind for is_kind, kind in _TYPES if is_kind(found.st_mode)]
    if kinds:
        return f"{kinds[0]}, not a file"
    if found.st_size > MAX_MEMBER_BYTES:
        return f"{found.st_size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
    return "" if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it cannot be read; ``strerror`` says why.
    """
    problem = find_problem(path)  # it may have changed since it was listed
    if problem:
        raise OSError(errno.EIO, problem, str(path))
    return path.read_bytes()


def _explain(error: OSError) -> str:
    return error.strerror or str(error)
