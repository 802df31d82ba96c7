"""Files that a table names: where each one is."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from posixpath import normpath
from typing import Protocol

from gender_classifier.data.file_names import escape_name
from gender_classifier.data.folders import OUTSIDE, find_problem, leads_out, read_file

_OUTSIDE = "not below the folder"


class Files(Protocol):
    """Files beside a table."""

    def find(self, name: str) -> tuple[str, str]:
        """Return the path of a file in the source, and why it cannot be used; an empty text if it can."""

    def read(self, path: str) -> bytes:
        """Return the content of a path that ``find`` returned; raises OSError or ArchiveError."""


class ListedFiles:
    """The files of a folder or zip, found by the path from the table or, if it is unique, by the end of the path."""

    def __init__(self, names: Iterable[str], folder: str, read: Callable[[str], bytes]) -> None:
        """Index ``names``; ``folder`` holds the table."""
        self._names = set(names)
        self._folder = folder
        self._read = read
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._names):
            self._by_last[name.rpartition("/")[2]].append(name)

    def find(self, name: str) -> tuple[str, str]:
        """Return the path of the file that a row names, and what is wrong with it."""
        for spelled in _spell(name):
            relative = normpath(spelled)
            if relative.startswith(("/", "../")) or relative == "..":
                return name, _OUTSIDE
            near = normpath(f"{self._folder}/{relative}") if self._folder else relative
            if near in self._names:
                return near, ""
            ends = [path for path in self._by_last[relative.rpartition("/")[2]] if f"/{path}".endswith(f"/{relative}")]
            if len(ends) > 1:
                return name, f"ends {len(ends)} paths, such as {ends[0]} and {ends[1]}"
            if ends:
                return ends[0], ""
        return name, "no such file"

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        if path not in self._names:
            raise FileNotFoundError(2, "no such file", path)
        return self._read(path)


class NamedFiles:
    """Files named relative to the folder of a table, which is not listed.

    Args:
        folder: holds the table.
        within: refuse files elsewhere: an untrusted table must not decide which files are read into a data set.
    """

    def __init__(self, folder: Path, *, within: bool) -> None:
        """Store the folder."""
        self._folder = folder
        self._root = os.path.realpath(folder) if within else None

    def find(self, name: str) -> tuple[str, str]:
        """Return the path of the file that a row names, and what is wrong with it."""
        # Path.exists() raises for a name that is too long.
        spellings = (one for one in _spell(name) if os.path.exists(self._folder / one))  # noqa: PTH110
        found = next(spellings, name)
        if self._root is None:
            return found, ""
        found = normpath(found)
        if found.startswith(("/", "../")):
            return name, _OUTSIDE
        if leads_out(self._folder / found, self._root):
            return found, OUTSIDE
        return found, find_problem(self._folder / found)

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return read_file(self._folder / path, self._root)


def _spell(name: str) -> Iterator[str]:
    """Yield the spellings to try: as written, as archives and this project escape it, with the slashes of Windows."""
    yield name
    yield escape_name(name)
    yield name.replace("\\", "/")
