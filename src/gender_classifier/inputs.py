"""From what is named on the command line (files, folders, patterns, archives, ``-``) to a stream of pictures."""

from __future__ import annotations

import glob
import heapq
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from gender_classifier.errors import ArchiveError, InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""What is taken from folders, patterns and archives, in any case. A file that is named itself needs none of them."""

MAX_FILE_BYTES = 64 * 2**20
"""A larger file is refused unread, in an archive too."""

Named = tuple[str, Callable[[], bytes]]
"""A picture's name for people, and what reads its file."""

_STDIN = "-"
_RUN = 2**16  # names of one folder that are sorted in memory at a time


def find_pictures(arguments: Iterable[str]) -> Iterator[Named]:
    """Yield the pictures that ``arguments`` name, in order; within a folder, pattern or archive sorted by name.

    Nothing is opened before it is read, and memory does not grow with the number of pictures, but for the list of an
    archive's members or a pattern's matches. Folders are searched to any depth; what begins with a dot is left out,
    and symbolic links to folders are not followed, so that no loop can be run into.

    Args:
        arguments: files, folders, ``.zip`` archives, patterns with ``*``, ``?``, ``[...]`` and ``**``, or ``-``.

    Yields:
        Name and reader. What is missing, unreadable or without any picture is yielded too; its reader raises
        :class:`InputError` or :class:`ArchiveError`, and the others go on.
    """
    for argument in arguments:
        found = False
        for named in _expand(argument):
            found = True
            yield named
        if not found:
            yield _failing(argument, InputError(f"holds no picture ({', '.join(sorted(SUFFIXES))})"))


def _expand(argument: str) -> Iterator[Named]:
    path = Path(argument)
    if argument == _STDIN:
        yield _STDIN, lambda: _read_limited(sys.stdin.buffer)
    elif path.is_dir():
        yield from _walk(argument)
    elif os.path.lexists(path):
        yield from _open_file(argument)
    elif glob.has_magic(argument):
        yield from _match(argument)
    else:
        yield _failing(argument, InputError("no such file or folder"))


def _open_file(name: str) -> Iterator[Named]:
    if name.lower().endswith(".zip"):
        yield from _unzip(name)
    else:
        yield name, _reader(name)


def _walk(folder: str) -> Iterator[Named]:
    try:
        entries = _sort_entries(folder)
        for name, is_folder in entries:
            path = os.path.join(folder, name)  # noqa: PTH118  as the user wrote it, './' kept
            if is_folder:
                yield from _walk(path)
            else:
                yield path, _reader(path)
    except OSError as error:
        yield _failing(folder, error)


def _sort_entries(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the pictures and folders in ``folder`` by name, each with whether it is a folder.

    Runs of names that do not fit are sorted one by one, kept in temporary files, and merged.
    """
    with os.scandir(folder) as scanned:
        wanted = ((entry.name, entry.is_dir(follow_symlinks=False)) for entry in scanned if _is_wanted(entry))
        runs: list[Iterable[tuple[str, bool]]] = []
        while run := sorted(islice(wanted, _RUN)):
            runs.append(run if len(run) < _RUN and not runs else _spill(run))
    return iter(heapq.merge(*runs))


def _spill(run: list[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  closed by the reader
    file.writelines(json.dumps(entry) + "\n" for entry in run)
    file.seek(0)
    return _read_run(file)


def _read_run(file: IO[str]) -> Iterator[tuple[str, bool]]:
    with file:
        for line in file:
            name, is_folder = json.loads(line)
            yield name, is_folder


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    if not has_picture_suffix(entry.name):
        return entry.is_dir(follow_symlinks=False)
    if entry.is_symlink():  # a broken or circular one is reported when it is read
        return os.path.isfile(entry.path) or not os.path.exists(entry.path)  # noqa: PTH110, PTH113
    return entry.is_dir() or entry.is_file()  # a pipe or device would be waited for


def has_picture_suffix(name: str) -> bool:
    """Whether ``name`` ends as a picture's does."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _match(pattern: str) -> Iterator[Named]:
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  as the user wrote it
        if os.path.isdir(name):  # noqa: PTH112
            if "**" not in pattern:  # which lists what lies in folders by itself
                yield from _walk(name)
        elif has_picture_suffix(name) or name.lower().endswith(".zip"):
            yield from _open_file(name)


def _unzip(name: str) -> Iterator[Named]:
    from gender_classifier.archive import Archive  # noqa: PLC0415  of no use to a single file

    try:
        # Closed when the last of its readers is gone: they are called after this function has gone on.
        archive = Archive(Path(name))
    except ArchiveError as error:
        yield _failing(name, error)
        return

    def reader(member: str) -> Callable[[], bytes]:
        return lambda: archive.read(member)

    for member in archive.members:
        if has_picture_suffix(member) and not _is_clutter(member):
            yield f"{name}/{member}", reader(member)


def _is_clutter(member: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(member).parts)


def _reader(name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(name, "rb") as file:  # noqa: PTH123  quicker, and this is done a million times
            return _read_limited(file)

    return read


def _read_limited(file: BinaryIO) -> bytes:
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"more than {MAX_FILE_BYTES:,} bytes, too large for a picture of a face")
    return data


def _failing(name: str, error: Exception) -> Named:
    def read() -> bytes:
        raise error

    return name, read
