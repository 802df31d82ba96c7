"""The files below a folder, with all that cannot be read, by name."""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

MAX_FILE_BYTES = 64 * 2**20
"""No image of a face is larger; a larger file is not read, in a zip neither."""

OUTSIDE = "a link that leads out of the folder"
"""Why a link is not followed: a folder that somebody else made must not decide which files of this machine are read."""

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

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
        files: regular files, links to such within the folder included, and why one cannot be read; an empty text if it
            can.
        closed: folders that cannot be listed, links to folders elsewhere included, and why.
        loops: links to a folder that contains them; what is there has been listed.
    """

    files: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    loops: list[str] = field(default_factory=list)


def list_files(folder: Path) -> Listing:
    """List every file below ``folder``, to any depth; links are followed as long as they stay below it."""
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
    """Tell whether ``path``, all links followed, lies outside the folder ``root``, itself free of links."""
    real = os.path.realpath(path)
    return real != root and not real.startswith(root.rstrip(os.sep) + os.sep)


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
    if found.st_size > MAX_FILE_BYTES:
        return f"{found.st_size:,} bytes, more than {MAX_FILE_BYTES:,}"
    return "" if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def read_file(path: Path, root: str | None = None) -> bytes:
    """Return the content of a file of at most :data:`MAX_FILE_BYTES`.

    Checked again on the open file: it may have been replaced since it was listed.

    Args:
        path: of the file; links are followed.
        root: folder, free of links, below which the file must lie; None for anywhere.

    Raises:
        OSError: it cannot be read; ``strerror`` says why.
    """
    if root is not None and leads_out(path, root):
        raise OSError(errno.EIO, OUTSIDE, str(path))
    if problem := find_problem(path):
        raise OSError(errno.EIO, problem, str(path))
    with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123  flags keep a pipe from being waited for
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
