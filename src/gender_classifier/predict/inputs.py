"""Command-line arguments (files, folders, patterns, archives, ``-``) turned into a stream of images."""

import errno
import glob
import heapq
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

from gender_classifier.data.file_names import (
    IMAGE_SUFFIXES,
    OTHER_ARCHIVES,
    escape_name,
    find_other_format,
    find_suffix,
    has_image_suffix,
    is_clutter,
)
from gender_classifier.data.folders import MAX_FILE_BYTES, OUTSIDE, find_problem, identify, leads_out, read_file
from gender_classifier.errors import ArchiveError, InputError

Named = tuple[str, Callable[[], bytes]]
"""An image's name as shown to the user, and a function that reads it."""

_LEADS_OUT = f"{OUTSIDE}; name it by itself, or copy there what it leads to"
_STDIN = "-"
_RUN = 2**16  # names of one folder that are sorted in memory at a time


def find_images(arguments: Iterable[str]) -> Iterator[Named]:
    """Yield the images that ``arguments`` name, in order; within a folder, pattern or archive sorted by name.

    Nothing is opened before it is read. Memory does not grow with the number of images, except for an archive's
    members and a pattern's matches. Folders are searched to any depth. Links are followed unless they form a loop or
    leave the folder (for a pattern, the part before its first wildcard). Hidden files are skipped. Images of formats
    that are not supported are yielded too, so that they are reported.

    Args:
        arguments: files, folders, ``.zip`` archives, folders and files in these (``faces.zip/copy``), patterns with
            ``*``, ``?``, ``[...]`` and ``**``, or ``-`` for standard input.

    Yields:
        Name and reader. For an argument that is missing, unreadable or without any image, the reader raises
        :class:`InputError`, :class:`ArchiveError` or OSError.
    """
    for argument in arguments:
        found = False
        for name, read in _expand(argument):
            found = True
            yield name, partial(_read_supported, name, read)
        if not found:
            yield _failing(argument, InputError(f"holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"))


def _expand(argument: str) -> Iterator[Named]:
    if argument == _STDIN:
        yield _STDIN, _read_stdin
    elif os.path.isdir(argument):  # noqa: PTH112  False for what cannot be examined
        yield from _walk(argument, os.path.realpath(argument))
    elif os.path.lexists(argument):
        yield from _open_file(argument)
    elif glob.has_magic(argument):
        yield from _match(argument)
    else:
        yield from _open_inside(argument)


def _open_file(name: str) -> Iterator[Named]:
    suffix = find_suffix(name)
    if suffix == ".zip":
        yield from _unzip(name)
    elif suffix in OTHER_ARCHIVES:
        yield _failing(name, InputError(f"archives of this kind ({suffix}) are not read; unpack it, give the folder"))
    else:
        yield name, partial(_read_named, name)


def _open_inside(name: str) -> Iterator[Named]:
    """Yield the images at a path that continues inside an archive."""
    from gender_classifier.data.archive import split_archive_path  # noqa: PLC0415  not needed for single files

    path, folder = split_archive_path(Path(name))
    if folder and find_suffix(path.name) == ".zip":
        yield from _unzip(str(path), folder)
        return
    try:
        os.stat(name)  # noqa: PTH116
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR)
        yield _failing(name, InputError("no such file or folder") if absent else error)


def _walk(folder: str, root: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Named]:
    """Yield the images below ``folder``, unless a link led back to it: then it is among the folders ``above``.

    Links that leave ``root``, a path without links, are yielded with a reader that fails.
    """
    try:
        identity = identify(folder)
        if identity in above:
            return
        for name, kind in _sort_entries(folder, root):
            path = os.path.join(folder, name)  # noqa: PTH118  as the user wrote it, './' kept
            if kind == _FOLDER:
                yield from _walk(path, root, above | {identity})
            elif kind in (_OUTSIDE, _OUTSIDE_FOLDER):
                yield _failing(path, InputError(_LEADS_OUT))
            else:
                yield path, partial(_read_plain, path) if kind == _FILE else partial(read_file, Path(path), root)
    except OSError as error:
        yield _failing(folder, error)


_FOLDER, _FILE, _LOST, _ODD = "folder", "file", "broken link", "odd"
_OUTSIDE, _OUTSIDE_FOLDER = "link that leaves the folder", "link to a folder elsewhere"


def _sort_entries(folder: str, root: str) -> Iterator[tuple[str, str]]:
    """Yield name and kind of the images and folders in ``folder``, by name.

    A large folder is sorted in runs, which are kept in temporary files and merged.
    """
    with os.scandir(folder) as scanned:
        kinds = ((entry.name, _find_kind(entry, root)) for entry in scanned if not is_clutter(entry.name))
        wanted = ((name, kind) for name, kind in kinds if _is_wanted(name, kind))
        runs: list[Iterable[tuple[str, str]]] = []
        while run := sorted(islice(wanted, _RUN)):
            runs.append(run if len(run) < _RUN and not runs else _spill(run))
    return iter(heapq.merge(*runs))


def _is_wanted(name: str, kind: str) -> bool:
    # A broken link without a suffix may have led to a folder of images.
    return kind in (_FOLDER, _OUTSIDE_FOLDER) or has_image_suffix(name) or (kind == _LOST and not find_suffix(name))


def _find_kind(entry: os.DirEntry[str], root: str) -> str:
    try:
        if entry.is_symlink() and leads_out(entry.path, root):
            return _OUTSIDE_FOLDER if entry.is_dir() else _OUTSIDE
        if entry.is_dir():
            return _FOLDER
        if entry.is_file(follow_symlinks=False):
            return _FILE
    except OSError:  # a link into a folder that this user may not search
        return _LOST
    return _LOST if _is_lost(entry.path) else _ODD


def _is_lost(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114


def _spill(run: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  closed by the reader
    file.writelines(json.dumps(entry) + "\n" for entry in run)
    file.seek(0)
    return _read_run(file)


def _read_run(file: IO[str]) -> Iterator[tuple[str, str]]:
    with file:
        for line in file:
            name, kind = json.loads(line)
            yield name, kind


def _match(pattern: str) -> Iterator[Named]:
    from gender_classifier.predict.patterns import expand_pattern, find_root  # noqa: PLC0415  as above

    found, closed = expand_pattern(pattern)
    listed = set(found)
    everything = "**" in pattern and pattern.rpartition("/")[2] in ("*", "**")  # also lists what is in the folders
    root = find_root(pattern)
    for name in found:
        if leads_out(name, root):
            if _is_wanted(name, _OUTSIDE_FOLDER if os.path.isdir(name) else _OUTSIDE):  # noqa: PTH112
                yield _failing(name, InputError(_LEADS_OUT))
        elif os.path.isdir(name):  # noqa: PTH112
            for path, read in () if everything else _walk(name, root):
                if path not in listed:  # a pattern may match a folder inside another match
                    listed.add(path)
                    yield path, read
        elif has_image_suffix(name) or (_is_lost(name) and not find_suffix(name)):
            is_odd = find_problem(name) or os.path.islink(name)  # noqa: PTH114
            yield name, partial(read_file, Path(name), root) if is_odd else partial(_read_plain, name)
        elif find_suffix(name) in (".zip", *OTHER_ARCHIVES):
            yield from _open_file(name)
    for folder, error in closed.items():
        if folder not in listed or not leads_out(folder, root):  # those are reported above
            yield _failing(folder, error)


def _unzip(name: str, folder: str = "") -> Iterator[Named]:
    from gender_classifier.data.archive import Archive  # noqa: PLC0415  not needed for single files

    try:
        # Not closed here, since its readers are called later; it closes when the last of them is gone.
        archive = Archive(Path(name))
        single = escape_name(folder)
        members = [single] if single in archive.members else sorted(archive.list_below(folder).values())
        members = [member for member in members if has_image_suffix(member) and not is_clutter(member)]
        archive.check_total(members)
    except ArchiveError as error:
        yield _failing(name, InputError(str(error).removeprefix(f"{Path(name)}: ")))  # callers name it
        return
    for member in members:
        yield f"{name}/{member}", partial(archive.read, member)


def _read_supported(name: str, read: Callable[[], bytes]) -> bytes:
    """Read an image, and reject it if neither its name nor its content is of a supported format."""
    data = read()
    if other := find_other_format(name, data):
        raise InputError(f"{other} images are not decoded; convert it to JPEG or PNG")
    return data


def _read_named(name: str) -> bytes:
    """Read a file that the user named: a pipe is waited for."""
    with open(name, "rb") as file:  # noqa: PTH123  faster than Path.open, and called for every image
        return _read_limited(file)


def _read_plain(name: str) -> bytes:
    """Read what was a regular file when it was listed, if it still is one; a pipe is not waited for."""
    with open(name, "rb", opener=_open_plain) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError("no regular file any more")
        return _read_limited(file)


def _open_plain(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise InputError("standard input is closed; give a file, or pipe one in")
    return _read_limited(sys.stdin.buffer)


def _read_limited(file: BinaryIO) -> bytes:
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"more than {MAX_FILE_BYTES:,} bytes, too large for an image of a face")
    return data


def _failing(name: str, error: Exception) -> Named:
    """Return ``name`` with a reader that raises ``error``."""

    def read() -> bytes:
        raise error

    return name, read
