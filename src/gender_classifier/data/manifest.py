"""The manifest: a row an image, with what verification found and decided."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from gender_classifier.common.files import write_csv
from gender_classifier.errors import DataError


@dataclass(frozen=True)
class Record:
    """One row of the manifest.

    ``split`` is the raw folder, ``Training`` or ``Validation``. ``status`` is ``ok`` or ``rejected``; ``reason``
    says why, or what was noticed about an image that stays. ``duplicate_group`` is a number shared by images that
    are the same image or nearly so, empty for the others. ``phash``, ``mode`` and sizes (px) are empty and 0
    where nothing could be decoded.
    """

    member: str
    split: str
    label: str
    sha256: str
    phash: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    status: str = "ok"
    reason: str = ""
    duplicate_group: str = ""


def write_manifest(path: Path, records: Iterable[Record]) -> None:
    """Write a row an image, the fields of :class:`Record` as columns."""
    write_csv(path, MANIFEST_COLUMNS, map(attrgetter(*MANIFEST_COLUMNS), records))


def read_manifest(path: Path) -> list[Record]:
    """Read what :func:`write_manifest` wrote.

    Raises:
        DataError: the file is missing, or a line is not a record.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != MANIFEST_COLUMNS:
                raise DataError(f"{path}: line 1 does not name the columns of a manifest; run `dvc repro -f verify`")
            return [_parse_row(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro verify`") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable manifest ({error}); run `dvc repro -f verify`") from None


MANIFEST_COLUMNS = tuple(field.name for field in fields(Record))


def _parse_row(path: Path, line: int, row: list[str]) -> Record:
    values: dict[str, Any] = dict(zip(MANIFEST_COLUMNS, row, strict=False))
    try:
        if len(row) != len(MANIFEST_COLUMNS) or values["status"] not in ("ok", "rejected"):
            raise ValueError
        return Record(**{**values, "width": int(values["width"]), "height": int(values["height"])})
    except ValueError:
        shown = ",".join(row)[:80]
        raise DataError(f"{path}: line {line} is no record ({shown!r}); run `dvc repro -f verify`") from None
