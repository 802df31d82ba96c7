"""Writing files whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import csv
import fcntl
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol, TextIO

from gender_classifier.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success move it to ``path``, on failure remove it.

    Whoever looks at ``path`` sees the old file, or the new one complete and on disk, and nothing between. Each writer
    has a temporary file of its own: two at once cannot tear one another, the later one wins. What a killed writer has
    left is removed by the next one.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        temporary, descriptor = _create_temporary(path)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):  # the error of a write knows no name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _create_temporary(path: Path) -> tuple[Path, int]:
    """Create a file that nobody else has, follow no link to it, and lock it for as long as it is written."""
    while True:
        temporary = path.with_name(f".{path.name[:200]}.{token_hex(6)}.tmp")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks: nothing is then removed as stale either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # removed as stale in the moment before it was locked


def _remove_stale(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name[:200])}.*.tmp"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
                left.unlink()
            finally:
                os.close(descriptor)


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

    Any text survives reading with ``csv``, ``newline=""`` and :func:`unescape_cell`, except surrogates: they become
    ``\u`` escapes, so that the file is UTF-8.
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
    return _SafeCells(csv.writer(_UnixLines(file), lineterminator="\r\n"))


class _SafeCells:
    """Writes rows whose cells no spreadsheet takes for a formula."""

    def __init__(self, writer: CsvWriter) -> None:
        self._writer = writer

    def writerow(self, row: Iterable[object], /) -> object:
        return self._writer.writerow(map(escape_cell, row))

    def writerows(self, rows: Iterable[Iterable[object]], /) -> None:
        self._writer.writerows(map(escape_cell, row) for row in rows)


_FORMULA = re.compile(r"'*[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]")


def escape_cell(value: object) -> object:
    """Return a cell of a CSV file that a spreadsheet shows as text instead of running it as a formula.

    An apostrophe is put before text that begins with ``=``, ``+``, ``-``, ``@`` (or their full-width forms), a tab or a
    carriage return, as OWASP recommends ("CSV injection"); numbers stay. :func:`unescape_cell` takes it away.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value) else value


def unescape_cell(text: str) -> str:
    """Return what :func:`escape_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
        raise DataError(f"{path}: not a readable JSON file ({error}); run `dvc repro` to make it anew") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a JSON {type(value).__name__}, not an object; make it anew with `dvc repro`")
    return value


def fsync(path: Path) -> None:
    """Have a file or a folder on disk before anything else happens."""
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
