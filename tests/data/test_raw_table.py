"""The table of labels: any text comes back, and a damaged file is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.data.raw_table import RawRow, open_raw_table, write_raw_table
from gender_classifier.errors import DataError

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("'=+-@\r\n\",; \t0"), max_size=6)
ROWS = st.integers(0, 3).flatmap(
    lambda width: st.tuples(
        st.lists(TEXT, min_size=width, max_size=width),
        st.lists(st.builds(RawRow, TEXT, TEXT, TEXT, TEXT, st.tuples(*[TEXT] * width)), max_size=4),
    )
)


@given(table=ROWS)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, table: tuple[list[str], list[RawRow]]) -> None:
    attributes, rows = table
    path = tmp_path_factory.mktemp("raw") / "raw.csv"
    write_raw_table(path, attributes, rows)
    with open_raw_table(path) as found:
        assert (list(found.attributes), list(found.rows)) == (attributes, rows)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1 does not name the columns"),
        (b"path,label,split,group\n", "line 1 does not name the columns"),
        (b"member,label,split,group\na,b,c\n", "row 1 has 3 cells of 4"),
        (b"member,label,split,group\n\xff,b,c,d\n", "not a readable table"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "raw.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{message}.*dvc repro -f ingest"), open_raw_table(path) as table:
        list(table.rows)


def test_a_missing_table_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro ingest"), open_raw_table(tmp_path / "raw.csv"):
        pass
