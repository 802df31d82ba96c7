"""Files are whole or absent."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gender_classifier.common.files import (
    build_csv_writer,
    escape_cell,
    read_json,
    replacing,
    unescape_cell,
    write_csv,
    write_json,
    write_text,
)
from gender_classifier.errors import DataError

ROWS = st.lists(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), min_size=2, max_size=2),
    max_size=5,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device: .*a.json"):
        fail()
    assert read_json(path) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    (tmp_path / ".a.json.0123456789ab.tmp").write_text("torn")
    with replacing(path) as temporary:
        temporary.write_text("mine")
        assert [file.name for file in tmp_path.iterdir()] == [temporary.name]
        write_json(path, {"a": 1})  # another writer, meanwhile
        assert temporary.read_text() == "mine"
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_writers_at_once_never_tear_one_another(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    texts = [str(number) * 200_000 for number in range(4)]

    def write(number: int) -> None:
        for _ in range(15):
            write_text(path, texts[number])
            assert path.read_text() in texts

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even under the very name that is drawn."""
    names = iter(["first", "first", "second"])
    monkeypatch.setattr("gender_classifier.common.files.token_hex", lambda _: next(names))
    (tmp_path / ".a.txt.first.tmp").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").write_text("precious")
    with pytest.raises(FileExistsError, match="a.txt"):
        write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "victim").read_text() == "precious"


def test_the_mode_is_the_users_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(
    st.tuples(
        st.sampled_from(["", "'", "''"]), st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\uff1d", "-0.5"]), TEXT
    )
)
def test_no_cell_is_a_formula_and_each_comes_back(parts: tuple[str, str, str]) -> None:
    text = "".join(parts)
    cell = str(escape_cell(text))
    assert unescape_cell(cell) == text
    try:
        float(text)
    except ValueError:
        assert cell[0] not in "=+-@\t\r\uff1d"


def test_numbers_stay_numbers_in_a_table(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["x", "name"], [[-0.5, "=1+1"], ["-0.5", "@sum"], ["1e-5", "-dash.jpg"]])
    assert (tmp_path / "a.csv").read_text() == "x,name\n-0.5,'=1+1\n-0.5,'@sum\n1e-5,'-dash.jpg\n"


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_csv_has_a_header_and_unix_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["x", "name"], [[1, "a,b"], [2, "c"]])
    assert (tmp_path / "a.csv").read_bytes() == b'x,name\n1,"a,b"\n2,c\n'


def read_rows(file: Iterable[str]) -> list[list[str]]:
    return [[unescape_cell(cell) for cell in row] for row in csv.reader(file)]


@settings(deadline=None)
@given(ROWS)
@example([["Icon\r", " b "], ["\r\n", "\n\r"], ["a\rb", '"'], ['","', "'\t"], ["\u2028", "\x85\x0c"], ["", "\ufeff"]])
def test_any_text_survives_csv(rows: list[list[str]]) -> None:
    written, plain = io.StringIO(newline=""), io.StringIO(newline="")
    build_csv_writer(written).writerows(rows)
    assert read_rows(io.StringIO(written.getvalue(), newline="")) == rows
    csv.writer(plain, lineterminator="\n").writerows(rows)
    if not any("\r" in field or escape_cell(field) != field for row in rows for field in row):
        assert written.getvalue() == plain.getvalue()


def test_a_file_of_odd_names_is_read_back(tmp_path: Path) -> None:
    rows = [["Icon\r", " b "], ["\r\n", "\n\r"], ['","', "\u2028"]]
    write_csv(tmp_path / "a.csv", ["x", "y"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert read_rows(file) == [["x", "y"], *rows]


def test_csv_rows_are_written_one_at_a_time() -> None:
    buffer = io.StringIO()
    writer = build_csv_writer(buffer)
    writer.writerow(["a\r", 1])
    assert buffer.getvalue() == '"a\r",1\n'
    writer.writerow(["a\r\n", None])
    assert buffer.getvalue() == '"a\r",1\n"a\r\n",\n'


def test_names_that_are_no_text_are_escaped_in_files(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["name"], [["caf\udce9.jpg"]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "name\ncaf\\udce9.jpg\n"
    write_text(tmp_path / "a.md", "caf\udce9, caf\u00e9\n")
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "caf\\udce9, caf\u00e9\n"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ("{", "not a readable JSON file"), ("[1]", "holds a JSON list")]
)
def test_unreadable_json_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_json_keeps_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["b", "a"]
