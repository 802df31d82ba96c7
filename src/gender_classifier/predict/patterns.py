"""File name patterns as a shell's, that follow links but never out or round a loop, and name what cannot be listed."""

import errno
import fnmatch
import glob
import os
import re
from dataclasses import dataclass, field

from gender_classifier.data.folders import OUTSIDE, leads_out

Identity = tuple[int, int]
"""Device and number: what tells one folder from all others, whatever it is called."""


@dataclass
class _Search:
    root: str
    found: set[str] = field(default_factory=set)
    closed: dict[str, OSError] = field(default_factory=dict)


_MAGIC = re.compile(r"[*?[]")


def find_root(pattern: str) -> str:
    """Return the folder before the first wildcard, free of links: what a pattern finds by itself lies below it."""
    before = _MAGIC.split(pattern, maxsplit=1)[0]
    return os.path.realpath(before[: before.rfind("/") + 1] or ".")


def expand_pattern(pattern: str) -> tuple[list[str], dict[str, OSError]]:
    """Find what matches a pattern with ``*``, ``?``, ``[...]`` and ``**``.

    As :func:`glob.glob`, which goes round loops of links until names are too long, follows links to anywhere, and is
    silent about folders that cannot be listed. Links to folders outside :func:`find_root` are not followed. Names that
    begin with a dot match only a part that does.

    Returns:
        The paths, sorted and spelled as the pattern is, and the folders that could not be listed or lie elsewhere.
    """
    parts = (pattern.replace(os.sep, "/") if os.altsep else pattern).split("/")
    if parts[-1] == "**":
        parts.append("*")
    search = _Search(root=find_root(pattern))
    _match("", parts, search)
    return sorted(search.found), search.closed


def _match(prefix: str, parts: list[str], search: _Search) -> None:
    """Add what matches ``parts`` below the folder ``prefix``, which is empty or ends in a slash."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        _match_any_depth(prefix, rest, frozenset(), search)
    elif glob.has_magic(part):
        for entry in _list(prefix, search):
            if fnmatch.fnmatch(entry.name, part) and (part.startswith(".") or not entry.name.startswith(".")):
                _go_on(prefix + entry.name, rest, search, is_folder=_may_enter(entry, prefix, search))
    elif not part and not rest:
        search.found.add(prefix)
    else:
        _go_on(prefix + part, rest, search, is_folder=not part or os.path.isdir(prefix + part))  # noqa: PTH112


def _go_on(path: str, rest: list[str], search: _Search, *, is_folder: bool) -> None:
    if rest and is_folder:
        _match(path + "/", rest, search)
    elif not rest and os.path.lexists(path):
        search.found.add(path)


def _match_any_depth(prefix: str, rest: list[str], above: frozenset[Identity], search: _Search) -> None:
    """Match ``rest`` in a folder and in all below it, but for those ``above`` it that a link leads back to."""
    try:
        folder = os.stat(prefix or ".")  # noqa: PTH116
    except OSError as error:
        search.closed[prefix.rstrip("/")] = error
        return
    identity = (folder.st_dev, folder.st_ino)
    if identity in above:
        return
    _match(prefix, rest, search)
    for entry in _list(prefix, search):
        if not entry.name.startswith(".") and _may_enter(entry, prefix, search):
            _match_any_depth(f"{prefix}{entry.name}/", rest, above | {identity}, search)


def _list(prefix: str, search: _Search) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(prefix.rstrip("/") or prefix or ".") as scanned:
            return list(scanned)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        search.closed[prefix.rstrip("/") or prefix] = error
        return []


def _may_enter(entry: os.DirEntry[str], prefix: str, search: _Search) -> bool:
    """Tell whether an entry is a folder below the root; note it where it lies elsewhere."""
    if not _is_folder(entry):
        return False
    if entry.is_symlink() and leads_out(entry.path, search.root):
        search.closed[prefix + entry.name] = OSError(errno.EIO, OUTSIDE, prefix + entry.name)
        return False
    return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
