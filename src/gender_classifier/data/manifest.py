"""The manifest: findings and verdict of verification, one row per image."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from gender_classifier.common.spreadsheet import read_table, write_table
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
    _, rows = read_table(path, MANIFEST_COLUMNS, _ADVICE)
    return [_parse_row(path, line, cells) for line, cells in rows]


MANIFEST_COLUMNS = tuple(field.name for field in fields(Record))

_ADVICE = "run `dvc repro verify`"


def _parse_row(path: Path, line: int, cells: list[str]) -> Record:
    values: dict[str, Any] = dict(zip(MANIFEST_COLUMNS, cells, strict=False))
    try:
        if values["status"] not in ("ok", "rejected"):
            raise ValueError
        return Record(**{**values, "width": int(values["width"]), "height": int(values["height"])})
    except ValueError:
        raise DataError(f"{path}: line {line} is not a record ({','.join(cells)[:80]!r}); {_ADVICE}") from None
