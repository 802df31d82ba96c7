"""No cell is a formula, numbers stay numbers, and any text comes back."""

import csv
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gender_classifier.common.spreadsheet import escape_cell, escape_row, restore_cell, write_table

FORMULAS = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u200b=1", "\ufeff=1", "\u00a0@x",
    "\uff1d1+1", "\uff0b1", "\uff0dx", "\uff20x", "\ufe63x", "'=1", "''=1", "--1", "-0.5a", "+49 170", "=", "+", "@", "-\r",
    "-1\n", "\u2212x",
]  # fmt: skip
PLAIN = [
    "-0.5",
    "+1e-05",
    "-.5",
    "1.",
    "",
    "-",
    "a=b",
    "'",
    "'quoted'",
    "Training/female/=1.jpg",
    "'-0.5",
    "\u5973.jpg",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert escape_cell(text) == f"'{text}"
    assert restore_cell(escape_cell(text)) == text
    assert restore_cell(text) in (text, text[1:])


@pytest.mark.parametrize("text", PLAIN)
def test_everything_else_stays(text: str) -> None:
    assert escape_cell(text) == restore_cell(text) == text


@given(st.text() | st.text(st.sampled_from("'=+-@\t\r\n 0.1e\uff1d"), max_size=6))
@example("'=")
def test_any_text_comes_back_and_is_no_formula(text: str) -> None:
    escaped = escape_cell(text)
    assert restore_cell(escaped) == text
    assert not escaped.startswith(("=", "+", "@", "\t", "\r")) or escaped.lstrip("+").replace(".", "")[:1].isdigit()
    assert escape_row([text, -0.5, 1, None]) == [escaped, -0.5, 1, None]


def test_a_table_is_read_back(tmp_path: Path) -> None:
    rows = [[text, -0.5] for text in (*FORMULAS, *PLAIN)]
    write_table(tmp_path / "a.csv", ["name", "=x"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["name", "'=x"]
    assert [[restore_cell(name), float(value)] for name, value in found] == rows
