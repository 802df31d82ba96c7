"""The manifest: findings and verdict of verification, one row per image."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from gender_classifier.common.spreadsheet import restore_cell, write_table
from gender_classifier.errors import DataError

RELABELLED, REMOVED = "relabelled", "removed"
"""Reasons that a person gave in ``data/corrections.csv``: for a label that is kept, and for a rejection."""


@dataclass(frozen=True)
class Record:
    """One row of the manifest.

    Attributes:
        member: name in the raw archive.
        split: of the source: ``train``, ``val`` or ``test``.
        label: name of its class.
        sha256: of the file.
        phash: perceptual hash; empty, like ``mode``, if the image was not decoded.
        width: px; 0, like ``height``, if the image was not decoded.
        height: px.
        mode: Pillow's mode.
        status: ``ok`` or ``rejected``.
        reason: why it was rejected, or a finding about an image that is kept.
        duplicate_group: number shared by exact and near duplicates; empty for other images.
        group: the person, as the source names them; empty if it does not.
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
    group: str = ""


def write_manifest(path: Path, records: Iterable[Record]) -> None:
    """Write one row per record, with the fields of :class:`Record` as columns; cells are escaped for spreadsheets."""
    write_table(path, MANIFEST_COLUMNS, map(attrgetter(*MANIFEST_COLUMNS), records))


def read_manifest(path: Path) -> list[Record]:
    """Read the file that :func:`write_manifest` writes.

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
    values: dict[str, Any] = dict(zip(MANIFEST_COLUMNS, map(restore_cell, row), strict=False))
    try:
        if len(row) != len(MANIFEST_COLUMNS) or values["status"] not in ("ok", "rejected"):
            raise ValueError
        return Record(**{**values, "width": int(values["width"]), "height": int(values["height"])})
    except ValueError:
        shown = ",".join(row)[:80]
        raise DataError(f"{path}: line {line} is not a record ({shown!r}); run `dvc repro -f verify`") from None
