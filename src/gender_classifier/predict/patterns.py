"""Shell-like file name patterns that report unlistable folders and follow no link out of the root or in a loop."""

import errno
import fnmatch
import glob
import os
import re
from dataclasses import dataclass, field

from gender_classifier.data.folders import OUTSIDE, identify, is_folder, leads_out

_MAGIC = re.compile(r"[*?[]")


@dataclass
class _Search:
    root: str
    found: set[str] = field(default_factory=set)
    closed: dict[str, OSError] = field(default_factory=dict)


def find_root(pattern: str) -> str:
    """Return the real path of the folder before the first wildcard, below which all matches must lie."""
    before = _MAGIC.split(pattern, maxsplit=1)[0]
    return os.path.realpath(before[: before.rfind("/") + 1] or ".")


def expand_pattern(pattern: str) -> tuple[list[str], dict[str, OSError]]:
    """Find the paths that match a pattern with ``*``, ``?``, ``[...]`` and ``**``.

    Unlike :func:`glob.glob`, this ends in loops of links, does not follow links to folders outside :func:`find_root`,
    and reports folders that cannot be listed. A name that begins with a dot is matched only by a part that does.

    Returns:
        The paths, sorted and spelled as the pattern is, and the folders that could not be listed or lie elsewhere.
    """
    parts = pattern.split("/")
    if parts[-1] == "**":
        parts.append("*")
    search = _Search(root=find_root(pattern))
    _match("", parts, search)
    return sorted(search.found), search.closed


def _match(prefix: str, parts: list[str], search: _Search) -> None:
    """Add the matches of ``parts`` below the folder ``prefix``, which is empty or ends with a slash."""
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


def _match_any_depth(prefix: str, rest: list[str], above: frozenset[tuple[int, int]], search: _Search) -> None:
    """Match ``rest`` in a folder and all folders below it, except where a link leads back to one ``above``."""
    try:
        identity = identify(prefix or ".")
    except OSError as error:
        search.closed[prefix.rstrip("/")] = error
        return
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
    """Return True for a folder below the root; record one that a link leads to elsewhere."""
    if not is_folder(entry):
        return False
    if entry.is_symlink() and leads_out(entry.path, search.root):
        search.closed[prefix + entry.name] = OSError(errno.EIO, OUTSIDE, prefix + entry.name)
        return False
    return True
