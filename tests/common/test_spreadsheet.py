"""No cell is a formula, numbers stay numbers, and any text comes back."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gender_classifier.common.spreadsheet import escape_cell, escape_row, read_table, restore_cell, write_table
from gender_classifier.errors import DataError

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
    path = tmp_path / "a.csv"
    assert path.read_text().startswith("name,'=x\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as a spreadsheet saves it
    names, found = read_table(path, ["=x"], "check it")
    assert names == ("name",)
    assert [[name, float(value)] for _, (value, name) in found] == rows


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1 lacks the column a, b; check it"),
        (b"a,c\n", "line 1 lacks the column b; check it"),
        (b'a,b\n"1\n2",3\n1\n', "line 4 has 1 cells, not 2; check it"),
        (b"a,b\n1,2,3\n", "line 2 has 3 cells, not 2; check it"),
        (b"a,b\n\xff,2\n", "not a readable table .*; check it"),
        (b'a,b\n"1,2\n', "not a readable table .*; check it"),
        (None, "no such file; check it"),
    ],
)
def test_a_table_that_is_damaged_or_missing_is_refused(tmp_path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError, match=f"a.csv: {message}"):
        list(read_table(tmp_path / "a.csv", ["a", "b"], "check it")[1])
