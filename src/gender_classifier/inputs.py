"""From what is named on the command line (files, folders, patterns, archives, ``-``) to a stream of pictures."""

from __future__ import annotations

import errno
import glob
import heapq
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

from gender_classifier.errors import ArchiveError, InputError
from gender_classifier.file_names import (
    IMAGE_SUFFIXES,
    OTHER_ARCHIVES,
    escape_name,
    find_other_format,
    find_suffix,
    has_image_suffix,
    is_clutter,
)

MAX_FILE_BYTES = 64 * 2**20
"""A larger file is refused unread, in an archive too."""

Named = tuple[str, Callable[[], bytes]]
"""A picture's name for people, and what reads its file."""

_STDIN = "-"
_RUN = 2**16  # names of one folder that are sorted in memory at a time


def find_pictures(arguments: Iterable[str]) -> Iterator[Named]:
    """Yield the pictures that ``arguments`` name, in order; within a folder, pattern or archive sorted by name.

    Nothing is opened before it is read, and memory does not grow with the number of pictures, but for the list of an
    archive's members or a pattern's matches. Folders are searched to any depth, links to folders followed unless they
    lead back; what begins with a dot is left out. Images of formats that are not decoded are yielded as well, to be
    named as such.

    Args:
        arguments: files, folders, ``.zip`` archives, folders and files in these (``faces.zip/copy``), patterns with
            ``*``, ``?``, ``[...]`` and ``**``, or ``-``.

    Yields:
        Name and reader. What is missing, unreadable or without any picture is yielded too; its reader raises
        :class:`InputError`, :class:`ArchiveError` or OSError, and the others go on.
    """
    for argument in arguments:
        found = False
        for named in _expand(argument):
            found = True
            yield named
        if not found:
            yield _failing(argument, InputError(f"holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})"))


def _expand(argument: str) -> Iterator[Named]:
    if argument == _STDIN:
        yield _STDIN, _read_stdin
    elif os.path.isdir(argument):  # noqa: PTH112  False also where it cannot be asked
        yield from _walk(argument)
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
    from gender_classifier.archive import split_archive_path  # noqa: PLC0415  of no use to a single file

    path, folder = split_archive_path(Path(name))
    if folder and find_suffix(path.name) == ".zip":
        yield from _unzip(str(path), folder)
        return
    try:
        os.stat(name)  # noqa: PTH116
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR)
        yield _failing(name, InputError("no such file or folder") if absent else error)


def _walk(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Named]:
    """Yield the pictures below ``folder``; nothing if it is one of those ``above`` it, reached by a link."""
    try:
        found = os.stat(folder)  # noqa: PTH116
        identity = (found.st_dev, found.st_ino)
        if identity in above:
            return
        for name, kind in _sort_entries(folder):
            path = os.path.join(folder, name)  # noqa: PTH118  as the user wrote it, './' kept
            if kind == _FOLDER:
                yield from _walk(path, above | {identity})
            else:
                yield path, _reader(path) if kind == _FILE else _odd_reader(path)
    except OSError as error:
        yield _failing(folder, error)


_FOLDER, _FILE, _LOST, _ODD = "folder", "file", "link that leads nowhere", "odd"


def _sort_entries(folder: str) -> Iterator[tuple[str, str]]:
    """Yield the pictures and folders in ``folder`` by name, each with what it is.

    Runs of names that do not fit are sorted one by one, kept in temporary files, and merged.
    """
    with os.scandir(folder) as scanned:
        kinds = ((entry.name, _find_kind(entry)) for entry in scanned if not is_clutter(entry.name))
        wanted = ((name, kind) for name, kind in kinds if _is_wanted(name, kind))
        runs: list[Iterable[tuple[str, str]]] = []
        while run := sorted(islice(wanted, _RUN)):
            runs.append(run if len(run) < _RUN and not runs else _spill(run))
    return iter(heapq.merge(*runs))


def _is_wanted(name: str, kind: str) -> bool:
    # A lost link without a suffix may have led to a folder of pictures.
    return kind == _FOLDER or has_image_suffix(name) or (kind == _LOST and not find_suffix(name))


def _find_kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return _FOLDER
        if entry.is_file():
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
    from gender_classifier.folders import find_problem  # noqa: PLC0415  of no use to a single file
    from gender_classifier.patterns import expand_pattern  # noqa: PLC0415  as above

    found, closed = expand_pattern(pattern)
    listed = set(found)
    everything = "**" in pattern and pattern.rpartition("/")[2] in ("*", "**")  # what lies in folders is listed as well
    for name in found:
        if os.path.isdir(name):  # noqa: PTH112
            yield from () if everything else _walk_unlisted(name, listed)
        elif has_image_suffix(name) or (_is_lost(name) and not find_suffix(name)):
            yield name, _odd_reader(name) if find_problem(name) else _reader(name)
        elif find_suffix(name) in (".zip", *OTHER_ARCHIVES):
            yield from _open_file(name)
    for folder, error in closed.items():
        yield _failing(folder, error)


def _walk_unlisted(folder: str, listed: set[str]) -> Iterator[Named]:
    """Yield the pictures below ``folder`` that are not ``listed``, and add them: patterns match folders in folders."""
    for name, read in _walk(folder):
        if name not in listed:
            listed.add(name)
            yield name, read


def _unzip(name: str, folder: str = "") -> Iterator[Named]:
    from gender_classifier.archive import Archive  # noqa: PLC0415  of no use to a single file

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


def _odd_reader(name: str) -> Callable[[], bytes]:
    """Read what was no file when it was listed; a pipe is not waited for."""
    from gender_classifier.folders import read_file  # noqa: PLC0415  of no use to a single file

    return lambda: _check_format(name, read_file(Path(name)))


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
        raise InputError(f"more than {MAX_FILE_BYTES:,} bytes, too large for a picture of a face")
    return data


def _failing(name: str, error: Exception) -> Named:
    def read() -> bytes:
        raise error

    return name, read
