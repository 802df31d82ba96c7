"""Writing files whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from gender_classifier.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success move it to ``path``, on failure remove it.

    Whoever looks at ``path`` sees the old file, or the new one complete and on disk, and nothing between. What a
    killed writer has left under the temporary name is written over by the next one.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        if error.filename is None:  # the error of a write knows no name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


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
        raise DataError(f"{path}: not a readable JSON file ({error}); run `dvc repro` to make it anew") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a JSON {type(value).__name__}, not an object; make it anew with `dvc repro`")
    return value


def _fsync(path: Path) -> None:
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
