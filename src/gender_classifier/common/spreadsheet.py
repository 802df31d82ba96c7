"""CSV files that are safe to open in a spreadsheet.

A cell that a spreadsheet would run as a formula gets an apostrophe in front, as OWASP advises ("CSV Injection");
numbers such as -0.5 stay numbers. :func:`restore_cell` undoes it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from gender_classifier.common.files import write_csv

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with escaped cells; see :func:`~gender_classifier.common.files.write_csv`."""
    write_csv(path, list(map(str, escape_row(header))), (escape_row(row) for row in rows))


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
