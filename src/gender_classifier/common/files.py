"""Writing files whole or not at all: a temporary name for each writer, fsync, rename."""

import csv
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TextIO

from gender_classifier.errors import DataError

_LEFTOVER = re.compile(r"^\..*-[0-9a-f]{16}\.tmp$", re.DOTALL)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, of this writer alone; on success move it to ``path``, else remove it.

    Whoever looks at ``path`` sees the old file, or a new one complete and on disk, and nothing between; of several
    writers at once, the last one's. The temporary file is made here, under a name that nobody can foresee, so that no
    link is followed. What killed writers have left in the folder is removed.

    Args:
        path: its folder is made where it is missing; a link there is replaced, not followed.
        private: readable and writable by the user alone; otherwise as the umask says.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent)
        temporary, descriptor = _make_temporary(path, 0o600 if private else 0o666)
        try:
            yield temporary
            flush_to_disk(temporary)
            temporary.replace(path)
            flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)  # and with it the lock that says that this writer lives
    except OSError as error:
        if error.filename is None:  # the error of a write knows no name
            error.filename = str(path)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose writers are dead; where that cannot be told, they stay."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(one.path) for one in entries if _LEFTOVER.search(one.name)]:
            with suppress(OSError), _open_regular(path) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


# Once a process: a folder may hold many files, and be written to as many times.
_remove_leftovers_once = lru_cache(1024)(remove_leftovers)


def _make_temporary(path: Path, mode: int) -> tuple[Path, int]:
    """Make an empty file beside ``path`` and lock it; return it, and the descriptor that holds the lock."""
    while True:
        temporary = path.with_name(f".{_shorten(path.name)}-{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        # Not every file system has locks. There, nothing is taken for a leftover either.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # before the lock was held, another writer took the file for a leftover


@contextmanager
def _open_regular(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _shorten(name: str) -> str:
    """Return a part of ``name`` that leaves room, in the 255 bytes of a file's name, for what makes it unique."""
    return os.fsdecode(os.fsencode(name)[:200])


def write_text(path: Path, text: str) -> None:
    r"""Write ``text`` as UTF-8; a surrogate, as of a name that is not UTF-8, as its ``\u`` escape."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` as it is."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON with its keys in the given order; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    r"""Write a header and ``rows``, comma-separated, a line each.

    Any text survives reading with ``csv`` and ``newline=""``, except surrogates: they become ``\u`` escapes, so that
    the file is UTF-8.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = build_csv_writer(file)
        writer.writerow(header)
        writer.writerows(rows)


class CsvWriter(Protocol):
    """What ``csv.writer`` returns, which has no public type."""

    def writerow(self, row: Iterable[object], /) -> object:
        """Write one row."""

    def writerows(self, rows: Iterable[Iterable[object]], /) -> None:
        """Write several rows."""


def build_csv_writer(file: TextIO) -> CsvWriter:
    """Return a ``csv.writer`` of lines that end with a line feed, and quote any field with a line break.

    Args:
        file: open for text, with ``newline=""``.
    """
    return csv.writer(_UnixLines(file), lineterminator="\r\n")


class _UnixLines:
    """Ends each row with a line feed.

    Told to do that itself, ``csv.writer`` leaves a carriage return unquoted before Python 3.13.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in ``path``.

    Raises:
        DataError: there is no such file, or it holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro` to make it") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error}); run `dvc repro` to make it again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a JSON {type(value).__name__}, not an object; make it again with `dvc repro`")
    return value


def flush_to_disk(path: Path) -> None:
    """Have the system write a file's content, or a folder's names, to the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def short_digest(digest: str) -> str:
    """Return the part of a SHA-256 that is shown to people, in MLflow too."""
    return digest[:16]
