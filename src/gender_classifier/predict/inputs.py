"""From what is named on the command line (files, folders, patterns, archives, ``-``) to a stream of images."""

import errno
import glob
import heapq
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
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
from gender_classifier.data.folders import MAX_FILE_BYTES, OUTSIDE, find_problem, leads_out, read_file
from gender_classifier.errors import ArchiveError, InputError

Named = tuple[str, Callable[[], bytes]]
"""An image's name for people, and what reads its file."""

_LEADS_OUT = f"{OUTSIDE}; name it by itself, or copy there what it leads to"
_STDIN = "-"
_RUN = 2**16  # names of one folder that are sorted in memory at a time


def find_pictures(arguments: Iterable[str]) -> Iterator[Named]:
    """Yield the images that ``arguments`` name, in order; within a folder, pattern or archive sorted by name.

    Nothing is opened before it is read, and memory does not grow with the number of images, but for the list of an
    archive's members or a pattern's matches. Folders are searched to any depth, links followed unless they lead back,
    or out of the folder (of a pattern, the part before its first wildcard). What begins with a dot is left out. Images
    of formats that are not decoded are yielded as well, to be named as such.

    Args:
        arguments: files, folders, ``.zip`` archives, folders and files in these (``faces.zip/copy``), patterns with
            ``*``, ``?``, ``[...]`` and ``**``, or ``-``.

    Yields:
        Name and reader. What is missing, unreadable or without any image is yielded too; its reader raises
        :class:`InputError`, :class:`ArchiveError` or OSError, and the others go on.
    """
    for argument in arguments:
        found = False
        for named in _expand(argument):
            found = True
            yield named
        if not found:
            yield _failing(argument, InputError(f"holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"))


def _expand(argument: str) -> Iterator[Named]:
    if argument == _STDIN:
        yield _STDIN, _read_stdin
    elif os.path.isdir(argument):  # noqa: PTH112  False also where it cannot be asked
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
        yield name, _reader(name)


def _open_inside(name: str) -> Iterator[Named]:
    """Open what a path that goes on inside an archive names."""
    from gender_classifier.data.archive import split_archive_path  # noqa: PLC0415  of no use to a single file

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
    """Yield the images below ``folder``; nothing if it is one of those ``above`` it, reached by a link.

    Links out of ``root``, a path free of links, are yielded as what cannot be read.
    """
    try:
        found = os.stat(folder)  # noqa: PTH116
        identity = (found.st_dev, found.st_ino)
        if identity in above:
            return
        for name, kind in _sort_entries(folder, root):
            path = os.path.join(folder, name)  # noqa: PTH118  as the user wrote it, './' kept
            if kind == _FOLDER:
                yield from _walk(path, root, above | {identity})
            elif kind in (_OUTSIDE, _OUTSIDE_FOLDER):
                yield _failing(path, InputError(_LEADS_OUT))
            else:
                yield path, _plain_reader(path) if kind == _FILE else _odd_reader(path, root)
    except OSError as error:
        yield _failing(folder, error)


_FOLDER, _FILE, _LOST, _ODD = "folder", "file", "link that leads nowhere", "odd"
_OUTSIDE, _OUTSIDE_FOLDER = "link that leads out of the folder", "link to a folder elsewhere"


def _sort_entries(folder: str, root: str) -> Iterator[tuple[str, str]]:
    """Yield the images and folders in ``folder`` by name, each with what it is.

    Runs of names that do not fit are sorted one by one, kept in temporary files, and merged.
    """
    with os.scandir(folder) as scanned:
        kinds = ((entry.name, _find_kind(entry, root)) for entry in scanned if not is_clutter(entry.name))
        wanted = ((name, kind) for name, kind in kinds if _is_wanted(name, kind))
        runs: list[Iterable[tuple[str, str]]] = []
        while run := sorted(islice(wanted, _RUN)):
            runs.append(run if len(run) < _RUN and not runs else _spill(run))
    return iter(heapq.merge(*runs))


def _is_wanted(name: str, kind: str) -> bool:
    # A lost link without a suffix may have led to a folder of images.
    return kind in (_FOLDER, _OUTSIDE_FOLDER) or has_image_suffix(name) or (kind == _LOST and not find_suffix(name))


def _find_kind(entry: os.DirEntry[str], root: str) -> str:
    try:
        if entry.is_symlink() and leads_out(entry.path, root):
            return _OUTSIDE_FOLDER if entry.is_dir() else _OUTSIDE
        if entry.is_dir():
            return _FOLDER
        if entry.is_file(follow_symlinks=False):
            return _FILE
    except OSError:  # a link that leads where this user must not look
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
    everything = "**" in pattern and pattern.rpartition("/")[2] in ("*", "**")  # what lies in folders is listed as well
    root = find_root(pattern)
    for name in found:
        if leads_out(name, root):
            if _is_wanted(name, _OUTSIDE_FOLDER if os.path.isdir(name) else _OUTSIDE):  # noqa: PTH112
                yield _failing(name, InputError(_LEADS_OUT))
        elif os.path.isdir(name):  # noqa: PTH112
            yield from () if everything else _walk_unlisted(name, root, listed)
        elif has_image_suffix(name) or (_is_lost(name) and not find_suffix(name)):
            yield name, _odd_reader(name, root) if find_problem(name) or os.path.islink(name) else _plain_reader(name)  # noqa: PTH114
        elif find_suffix(name) in (".zip", *OTHER_ARCHIVES):
            yield from _open_file(name)
    for folder, error in closed.items():
        if folder not in listed or not leads_out(folder, root):  # those are named above
            yield _failing(folder, error)


def _walk_unlisted(folder: str, root: str, listed: set[str]) -> Iterator[Named]:
    """Yield the images below ``folder`` that are not ``listed``, and add them: patterns match folders in folders."""
    for name, read in _walk(folder, root):
        if name not in listed:
            listed.add(name)
            yield name, read


def _unzip(name: str, folder: str = "") -> Iterator[Named]:
    from gender_classifier.data.archive import Archive  # noqa: PLC0415  of no use to a single file

    try:
        # Closed when the last of its readers is gone: they are called after this function has gone on.
        archive = Archive(Path(name))
        single = escape_name(folder)
        members = [single] if single in archive.members else sorted(archive.list_below(folder).values())
        members = [member for member in members if has_image_suffix(member) and not is_clutter(member)]
        archive.check_total(members)
    except ArchiveError as error:
        yield _failing(name, error)
        return

    def reader(member: str) -> Callable[[], bytes]:
        return lambda: _check_format(member, archive.read(member))

    for member in members:
        yield f"{name}/{member}", reader(member)


def _reader(name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(name, "rb") as file:  # noqa: PTH123  quicker, and this is done a million times
            return _check_format(name, _read_limited(file))

    return read


def _plain_reader(name: str) -> Callable[[], bytes]:
    """Read what was a file and no link when it was listed, if it still is; a pipe is not waited for."""

    def read() -> bytes:
        with open(name, "rb", opener=_open_plain) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError("no regular file any more")
            return _check_format(name, _read_limited(file))

    return read


def _open_plain(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _odd_reader(name: str, root: str | None = None) -> Callable[[], bytes]:
    """Read what was a link, or no file, when it was listed; a pipe is not waited for."""
    return lambda: _check_format(name, read_file(Path(name), root))


def _check_format(name: str, data: bytes) -> bytes:
    """Return ``data``, unless the name is of a format that is not decoded and the content is no other."""
    other = find_other_format(name, data)
    if other:
        raise InputError(f"{other} images are not decoded; convert it to JPEG or PNG")
    return data


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
    def read() -> bytes:
        raise error

    return name, read
