"""``data/raw.csv``: what the source says about each image of the raw archive."""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gender_classifier.common.spreadsheet import restore_cell, write_table
from gender_classifier.errors import DataError

RAW_COLUMNS = ("member", "label", "split", "group")
"""Columns before those of the attributes."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One image of the raw archive.

    Attributes:
        member: name in the archive.
        label: name of its class.
        split: ``train``, ``val`` or ``test``; ``train`` if the source has no splits.
        group: the person; an empty text if the source does not say.
        attributes: values, in the order of the table's attributes.
    """

    member: str
    label: str
    split: str
    group: str = ""
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawTable:
    """An open table: names of the attributes, and the rows, read as they are taken."""

    attributes: tuple[str, ...]
    rows: Iterator[RawRow]


def write_raw_table(path: Path, attributes: Sequence[str], rows: Iterable[RawRow]) -> None:
    """Write one line per row, with escaped cells (:mod:`gender_classifier.common.spreadsheet`)."""
    cells = ((row.member, row.label, row.split, row.group, *row.attributes) for row in rows)
    write_table(path, (*RAW_COLUMNS, *attributes), cells)


@contextmanager
def open_raw_table(path: Path) -> Iterator[RawTable]:
    """Open the file that :func:`write_raw_table` writes.

    Raises:
        DataError: it is missing or no such table; for a bad line, when that row is taken.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = [restore_cell(cell) for cell in next(lines, ())]
            if tuple(header[: len(RAW_COLUMNS)]) != RAW_COLUMNS:
                raise DataError(f"{path}: line 1 does not name the columns of a raw table; run `dvc repro -f ingest`")
            yield RawTable(tuple(header[len(RAW_COLUMNS) :]), _read_rows(path, lines, len(header)))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro ingest`") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error}); run `dvc repro -f ingest`") from None


def _read_rows(path: Path, lines: Iterator[list[str]], width: int) -> Iterator[RawRow]:
    for number, line in enumerate(lines, start=1):
        if len(line) != width:
            raise DataError(f"{path}: row {number} has {len(line)} cells of {width}; run `dvc repro -f ingest`")
        # Interned: 200,000 rows of 40 attributes share a few dozen values.
        member, label, split, group, *attributes = (sys.intern(restore_cell(cell)) for cell in line)
        yield RawRow(member, label, split, group, tuple(attributes))
