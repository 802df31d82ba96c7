"""CSV files that are safe to open in a spreadsheet.

A cell that a spreadsheet would run as a formula gets an apostrophe in front, as OWASP advises ("CSV Injection");
numbers such as -0.5 stay numbers. :func:`restore_cell` undoes it.
"""

import csv
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gender_classifier.common.files import write_csv
from gender_classifier.errors import DataError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with escaped cells; see :func:`~gender_classifier.common.files.write_csv`."""
    write_csv(path, list(map(str, escape_row(header))), (escape_row(row) for row in rows))


def read_table(
    path: Path, columns: Sequence[str], advice: str
) -> tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]:
    """Open a CSV file that :func:`write_table` wrote; a spreadsheet may have added a byte order mark.

    Args:
        path: of the file.
        columns: names of the columns that it must have, in any order.
        advice: what to do if the file is missing or damaged, for messages.

    Returns:
        The names of the other columns, and the line number and the restored cells of each row, those of ``columns``
        first. Rows are read as they are taken.

    Raises:
        DataError: the file is missing or not readable, or lacks a column; for a row, when it is taken.
    """
    lines = _read_lines(path, advice)
    _, header = next(lines, (1, []))
    if missing := [name for name in columns if name not in header]:
        raise DataError(f"{path}: line 1 lacks the column {', '.join(missing)}; {advice}")
    order = [header.index(name) for name in columns]
    order += [place for place in range(len(header)) if place not in order]
    names = tuple(header[place] for place in order[len(columns) :])
    return names, ((line, [cells[place] for place in order]) for line, cells in lines)


def _read_lines(path: Path, advice: str) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader, width = csv.reader(file, strict=True), 0
            for cells in reader:
                width = width or len(cells)  # of the header
                if len(cells) != width:
                    raise DataError(f"{path}: line {reader.line_num} has {len(cells)} cells, not {width}; {advice}")
                # Interned: 200,000 rows of 40 attributes share a few dozen values.
                yield reader.line_num, [sys.intern(restore_cell(cell)) for cell in cells]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {advice}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error}); {advice}") from None


def escape_row(cells: Iterable[object]) -> list[object]:
    """Return a row with :func:`escape_cell` applied to its texts."""
    return [escape_cell(cell) if isinstance(cell, str) else cell for cell in cells]


def escape_cell(text: str) -> str:
    """Return ``text`` with an apostrophe in front if a spreadsheet would run it as a formula."""
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def restore_cell(text: str) -> str:
    """Undo :func:`escape_cell`."""
    return text[1:] if text.startswith("'") and _is_formula(text.lstrip("'")) else text


def _is_formula(text: str) -> bool:
    if text[:1].isascii() and text[:1].isalnum():  # nearly every cell of a table of 200,000 images
        return False
    # A single hyphen is the name of standard input.
    if text in ("", "-") or _NUMBER.fullmatch(text):
        return False
    # Spreadsheets also accept full-width signs, and blanks or invisible characters before a sign.
    first = next((char for char in text if char.isprintable() and not char.isspace()), " ")
    return text[0] in "\t\r\n" or unicodedata.normalize("NFKC", first)[0] in "=+-@\u2212"
