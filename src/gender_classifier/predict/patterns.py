"""File name patterns as a shell's, that follow links but never round a loop, and name what cannot be listed."""

from __future__ import annotations

import fnmatch
import glob
import os

Identity = tuple[int, int]
"""Device and number: what tells one folder from all others, whatever it is called."""


def expand_pattern(pattern: str) -> tuple[list[str], dict[str, OSError]]:
    """Find what matches a pattern with ``*``, ``?``, ``[...]`` and ``**``.

    As :func:`glob.glob`, which goes round loops of links until names are too long and is silent about folders that
    cannot be listed. Names that begin with a dot match only a part that does.

    Returns:
        The paths, sorted and spelled as the pattern is, and the folders that could not be listed.
    """
    parts = (pattern.replace(os.sep, "/") if os.altsep else pattern).split("/")
    if parts[-1] == "**":
        parts.append("*")
    found, closed = set[str](), dict[str, OSError]()
    _match("", parts, found, closed)
    return sorted(found), closed


def _match(prefix: str, parts: list[str], found: set[str], closed: dict[str, OSError]) -> None:
    """Add what matches ``parts`` below the folder ``prefix``, which is empty or ends in a slash."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        _match_any_depth(prefix, rest, frozenset(), found, closed)
    elif glob.has_magic(part):
        for entry in _list(prefix, closed):
            if fnmatch.fnmatch(entry.name, part) and (part.startswith(".") or not entry.name.startswith(".")):
                _go_on(prefix + entry.name, rest, found, closed, is_folder=_is_folder(entry))
    elif not part and not rest:
        found.add(prefix)
    else:
        _go_on(prefix + part, rest, found, closed, is_folder=not part or os.path.isdir(prefix + part))  # noqa: PTH112


def _go_on(path: str, rest: list[str], found: set[str], closed: dict[str, OSError], *, is_folder: bool) -> None:
    if rest and is_folder:
        _match(path + "/", rest, found, closed)
    elif not rest and os.path.lexists(path):
        found.add(path)


def _match_any_depth(
    prefix: str, rest: list[str], above: frozenset[Identity], found: set[str], closed: dict[str, OSError]
) -> None:
    """Match ``rest`` in a folder and in all below it, but for those ``above`` it that a link leads back to."""
    try:
        folder = os.stat(prefix or ".")  # noqa: PTH116
    except OSError as error:
        closed[prefix.rstrip("/")] = error
        return
    identity = (folder.st_dev, folder.st_ino)
    if identity in above:
        return
    _match(prefix, rest, found, closed)
    for entry in _list(prefix, closed):
        if not entry.name.startswith(".") and _is_folder(entry):
            _match_any_depth(f"{prefix}{entry.name}/", rest, above | {identity}, found, closed)


def _list(prefix: str, closed: dict[str, OSError]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(prefix.rstrip("/") or prefix or ".") as scanned:
            return list(scanned)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        closed[prefix.rstrip("/") or prefix] = error
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
