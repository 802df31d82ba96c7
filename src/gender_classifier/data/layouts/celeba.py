"""CelebA: a table of 40 attributes, of which ``Male`` is the label, with the official splits and identities beside it.

https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: ``list_attr_celeba.txt`` has a count, a line of names, then a row of
1 and -1 per image, separated by blanks; ``list_eval_partition.txt`` has 0, 1 or 2; ``identity_CelebA.txt`` a number per
person. Kaggle's copy has the same tables as CSV files with a header.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from posixpath import basename

from gender_classifier.data.file_names import list_first
from gender_classifier.data.layouts.entry import Entry, Found
from gender_classifier.data.layouts.files import ListedFiles
from gender_classifier.errors import SourceError

_ATTRIBUTES, _PARTITION, _IDENTITY = "list_attr_celeba", "list_eval_partition", "identity_celeba"
_LABEL, _LABELS = "male", {"1": "male", "-1": "female"}
_SPLITS = {"0": "train", "1": "val", "2": "test"}
_VALUES = {"1": "yes", "-1": "no"}

Rows = Iterator[tuple[int, list[str]]]


def fits(names: Sequence[str]) -> bool:
    """Return True if the table of attributes is there."""
    return bool(_find_tables(names, _ATTRIBUTES))


def find(names: Sequence[str], read: Callable[[str], bytes], where: str, *, refuses_missing: bool) -> Found:
    """Return the images of the table of attributes, with split and identity where the other tables give them.

    Raises:
        SourceError: a table is there twice or damaged, an image is missing in one of them, or its file is missing.
    """
    chosen = {kind: _choose(_find_tables(names, kind), where) for kind in (_ATTRIBUTES, _PARTITION, _IDENTITY)}
    splits, people = (
        _read_column(read(name), f"{where}/{name}") if (name := chosen[kind]) else None
        for kind in (_PARTITION, _IDENTITY)
    )
    name = chosen[_ATTRIBUTES]
    here, files = f"{where}/{name}", ListedFiles(names, name.rpartition("/")[0], read)
    header, rows = _read_attributes(read(name), here)
    male = [column.lower() for column in header].index(_LABEL)
    entries, missing, seen = list[Entry](), list[str](), set[str]()
    for line, (image, *values) in rows:
        if len(values) != len(header) or not {*values} <= {*_VALUES} or image in seen:
            raise SourceError(f"{here}: line {line} is not an image of its own with {len(header)} values of 1 or -1")
        seen.add(image)
        if any(table is not None and image not in table for table in (splits, people)):
            raise SourceError(f"{here}: line {line}: {image} is not in every table of CelebA; get the tables again")
        split, person = splits[image] if splits else "0", people[image] if people else ""
        if split not in _SPLITS:
            raise SourceError(
                f"{where}/{chosen[_PARTITION]}: {image} is in the split {split[:20]!r}; it must be 0, 1 or 2"
            )
        path, problem = files.find(image)
        if problem:
            missing.append(f"line {line}: {image} ({problem})")
        attributes = tuple(_VALUES[value] for place, value in enumerate(values) if place != male)
        entries.append(Entry(path, path, _LABELS[values[male]], _SPLITS[split], person, attributes))
    if missing and refuses_missing:
        raise SourceError(
            f"{here}: {len(missing):,} of its images cannot be read: {list_first(missing)}; add the files"
        )
    kept = tuple(column for place, column in enumerate(header) if place != male)
    return Found("CelebA", entries, kept, tuple(filter(None, chosen.values())))


def _find_tables(names: Sequence[str], kind: str) -> list[str]:
    return [name for name in names if basename(name).lower() in (f"{kind}.txt", f"{kind}.csv")]


def _choose(tables: Sequence[str], where: str) -> str:
    if len(tables) > 1:
        raise SourceError(f"{where}: holds a table of CelebA twice ({list_first(tables)}); remove one of them")
    return tables[0] if tables else ""


def _read_attributes(data: bytes, where: str) -> tuple[list[str], Rows]:
    """Return the names of the attributes, and each image with its values, by line."""
    rows = _split_rows(data, where)
    _, header = next(rows, (1, []))
    if len(header) == 1 and header[0].isdigit():
        _, header = next(rows, (2, []))  # after the number of images
    if header and header[0].lower() in ("image_id", "id"):
        header = header[1:]
    if [column.lower() for column in header].count(_LABEL) != 1 or len(set(header)) < len(header):
        raise SourceError(f"{where}: names no column Male, or a column twice; get the table again")
    return header, rows


def _read_column(data: bytes, where: str) -> dict[str, str]:
    """Return the value of each image in a table of two columns."""
    found: dict[str, str] = {}
    for line, row in _split_rows(data, where):
        if len(row) != 2:
            raise SourceError(f"{where}: line {line} has {len(row)} cells instead of 2; get the table again")
        if line > 1 or row[0].lower() not in ("image_id", "id"):
            found[row[0]] = sys.intern(row[1])
    return found


def _split_rows(data: bytes, where: str) -> Rows:
    """Yield line number and cells, one row at a time: 200,000 rows of 41 cells are 0.5 GB."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
        split = csv.reader(lines) if "," in "".join(lines[:3]) else (line.split() for line in lines)
        for number, cells in enumerate(split, start=1):
            if cells:
                yield number, [cell.strip() for cell in cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{where}: not a readable table in UTF-8 ({error}); get the table again") from None
