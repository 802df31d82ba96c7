"""List and read the files below a folder, with a reason for each that cannot be read."""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

MAX_FILE_BYTES = 64 * 2**20
"""Larger files, in a zip too, are not read: no image of a face is that large."""

OUTSIDE = "a link that leads out of the folder"
"""Reason for not following a link: an untrusted folder must not decide which files of this machine are read."""

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_TYPES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip


@dataclass
class Listing:
    """Content of a folder, as relative paths separated by ``/``.

    Attributes:
        files: files, and links to files, to why they cannot be read; an empty text if they can.
        closed: folders that cannot be listed, including links to folders elsewhere, to the reason.
        loops: links to a folder that contains them; its files are listed once.
    """

    files: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    loops: list[str] = field(default_factory=list)


def list_files(folder: Path) -> Listing:
    """List every file below ``folder``; links are followed as long as they stay below it."""
    listing, root = Listing(), os.path.realpath(folder)
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
            if entry.is_symlink() and leads_out(entry.path, root):
                (listing.closed if is_folder(entry) else listing.files)[path] = OUTSIDE
            elif not is_folder(entry):
                listing.files[path] = find_problem(entry.path)
            elif entry.is_symlink() and identify(entry.path) in within:
                listing.loops.append(path)
            else:
                waiting.append((path, within))
    return listing


def leads_out(path: str | Path, root: str) -> bool:
    """Return True if ``path``, with links resolved, is outside ``root``, a path without links."""
    real = os.path.realpath(path)
    return real != root and not real.startswith(root.rstrip(os.sep) + os.sep)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return True for a folder or a link to one; False also if this cannot be determined."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def identify(path: str | Path) -> tuple[int, int]:
    """Return the device and inode of a folder, the same under all of its names."""
    found = os.stat(path)  # noqa: PTH116  accepts text too
    return found.st_dev, found.st_ino


def find_problem(path: str | Path) -> str:
    """Return why ``path`` cannot be read as a file, or an empty text. It is not opened: a pipe would block."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):  # noqa: PTH114
            return "a link to nothing" if error.errno != errno.ELOOP else "a link to itself"
        return _explain(error)
    kinds = [kind for is_kind, kind in _TYPES if is_kind(found.st_mode)]
    if kinds:
        return f"{kinds[0]}, not a file"
    if found.st_size > MAX_FILE_BYTES:
        return f"{found.st_size:,} bytes, more than {MAX_FILE_BYTES:,}"
    return "" if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def read_file(path: Path, root: str | None = None) -> bytes:
    """Return the content of a file of at most :data:`MAX_FILE_BYTES`.

    The checks are repeated on the open file, which may have been replaced since.

    Args:
        path: of the file; links are followed.
        root: folder, without links in its path, that must contain the file; None for anywhere.

    Raises:
        OSError: it cannot be read; ``strerror`` says why.
    """
    if root is not None and leads_out(path, root):
        raise OSError(errno.EIO, OUTSIDE, str(path))
    if problem := find_problem(path):
        raise OSError(errno.EIO, problem, str(path))
    with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123  flags: do not block on a pipe
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EIO, "no regular file", str(path))
        if root is not None and leads_out(_find_real_path(file.fileno(), path), root):
            raise OSError(errno.EIO, OUTSIDE, str(path))
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(errno.EIO, f"more than {MAX_FILE_BYTES:,} bytes", str(path))
    return data


def _find_real_path(descriptor: int, path: Path) -> str | Path:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:  # not Linux
        return path


def _explain(error: OSError) -> str:
    return error.strerror or str(error)
