"""Tables of images: ``data/raw.csv``, what the source says, and the attributes in ``data/processed/images.csv``."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gender_classifier.common.spreadsheet import read_table, write_table
from gender_classifier.errors import DataError

RAW_COLUMNS = ("member", "label", "split", "group")
"""Columns of ``raw.csv`` before those of the attributes."""

IMAGE_COLUMNS = ("path", "label", "split", "group", "sha256")
"""Columns of ``images.csv`` before those of the attributes."""

MOST_VALUES = 50
"""A column with more distinct values, such as a person's number, is no attribute to tabulate."""


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


@dataclass(frozen=True)
class Attributes:
    """Attributes of some images.

    Attributes:
        names: of the columns with at most :data:`MOST_VALUES` values.
        values: of each image, in the order of ``names``.
        left_out: names of the other columns.
    """

    names: tuple[str, ...] = ()
    values: Sequence[tuple[str, ...]] = ()
    left_out: tuple[str, ...] = ()


def read_attributes(path: Path, members: Sequence[str]) -> Attributes:
    """Return the attributes of the images ``members``, in their order, from ``data/processed/images.csv``.

    Raises:
        DataError: the file is missing, is no such table, or lacks one of the images.
    """
    names, lines = read_table(path, IMAGE_COLUMNS, "run `dvc repro preprocess`")
    if not names:
        return Attributes()
    places = {member: place for place, member in enumerate(members)}
    found = dict[int, list[str]]()
    for _, (member, *cells) in lines:
        if member in places:
            found[places[member]] = cells[len(IMAGE_COLUMNS) - 1 :]
    if len(found) < len(members):
        missing = next(member for member, place in places.items() if place not in found)
        raise DataError(
            f"{path}: lacks {len(members) - len(found)} of {len(members)} images, such as {missing}; run `dvc repro -f "
            "preprocess`"
        )
    rows = [found[place] for place in range(len(members))]
    counts = [len(set(column)) for column in zip(*rows, strict=True)]
    kept = [place for place, count in enumerate(counts) if count <= MOST_VALUES]
    return Attributes(
        tuple(names[place] for place in kept),
        [tuple(row[place] for place in kept) for row in rows],
        tuple(name for name, count in zip(names, counts, strict=True) if count > MOST_VALUES),
    )


def write_raw_table(path: Path, attributes: Sequence[str], rows: Iterable[RawRow]) -> None:
    """Write one line per row, with escaped cells (:mod:`gender_classifier.common.spreadsheet`)."""
    cells = ((row.member, row.label, row.split, row.group, *row.attributes) for row in rows)
    write_table(path, (*RAW_COLUMNS, *attributes), cells)


def read_raw_table(path: Path) -> RawTable:
    """Open the file that :func:`write_raw_table` writes.

    Raises:
        DataError: it is missing or no such table; for a bad line, when that row is taken.
    """
    names, lines = read_table(path, RAW_COLUMNS, "run `dvc repro ingest`")
    rows = (
        RawRow(member, label, split, group, tuple(attributes))
        for _, (member, label, split, group, *attributes) in lines
    )
    return RawTable(names, rows)
