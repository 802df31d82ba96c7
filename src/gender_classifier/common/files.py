"""Atomic writes (temporary file, fsync, rename), and reading and writing of JSON and CSV."""

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
    """Yield a temporary path beside ``path``; on success move it to ``path``, otherwise remove it.

    Readers of ``path`` see either the old file or the new one, complete and on disk; of several writers at once, the
    last one wins. The temporary file is created here under an unpredictable name, so no link is followed. Temporary
    files of killed writers are removed.

    Args:
        path: its folder is created if missing; a link is replaced, not followed.
        private: readable and writable by the user only; otherwise the umask decides.

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
            os.close(descriptor)  # also releases the lock
    except OSError as error:
        if error.filename is None:  # errors of write() name no file
            error.filename = str(path)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose writers are dead; keep them where this is unknown."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if _LEFTOVER.search(entry.name)]:
            with suppress(OSError), open(path, opener=_open_regular) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _open_regular(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


# Once per process and folder, as listing a folder for each of many files is slow.
_remove_leftovers_once = lru_cache(1024)(remove_leftovers)


def _make_temporary(path: Path, mode: int) -> tuple[Path, int]:
    """Create and lock an empty file beside ``path``; return its path and the descriptor that holds the lock."""
    while True:
        shortened = os.fsdecode(os.fsencode(path.name)[:200])  # a file name has at most 255 bytes
        temporary = path.with_name(f".{shortened}-{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        # A file system without locks: remove_leftovers then removes nothing either.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # another writer removed the file before it was locked


def write_text(path: Path, text: str) -> None:
    r"""Write ``text`` as UTF-8; surrogates, from file names that are not UTF-8, become ``\u`` escapes."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data``."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON, keys in the given order; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    r"""Write a header and ``rows`` as CSV in UTF-8.

    Any text survives reading with ``csv`` and ``newline=""``, except surrogates: they become ``\u`` escapes.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = build_csv_writer(file)
        writer.writerow(header)
        writer.writerows(rows)


class CsvWriter(Protocol):
    """Interface of ``csv.writer``, whose type is private."""

    def writerow(self, row: Iterable[object], /) -> object:
        """Write one row."""

    def writerows(self, rows: Iterable[Iterable[object]], /) -> None:
        """Write several rows."""


def build_csv_writer(file: TextIO) -> CsvWriter:
    """Return a ``csv.writer`` that ends lines with a line feed and quotes fields with any line break.

    Args:
        file: open for text with ``newline=""``.
    """
    return csv.writer(_UnixLines(file), lineterminator="\r\n")


class _UnixLines:
    """Ends each row with a line feed.

    With that as ``lineterminator``, ``csv.writer`` leaves carriage returns unquoted before Python 3.13.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in ``path``.

    Raises:
        DataError: there is no such file, or it is not a JSON object.
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
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_digest(digest: str) -> str:
    """Return the first part of a SHA-256, as shown to people and in MLflow."""
    return digest[:16]
