"""Tables of images: any text comes back, attributes are found by image, and a damaged file is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.common.spreadsheet import write_table
from gender_classifier.data.raw_table import (
    IMAGE_COLUMNS,
    MOST_VALUES,
    Attributes,
    RawRow,
    read_attributes,
    read_raw_table,
    write_raw_table,
)
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
    found = read_raw_table(path)
    assert (list(found.attributes), list(found.rows)) == (attributes, rows)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1 lacks the column member, label, split, group"),
        (b"path,label,split,group\n", "line 1 lacks the column member"),
        (b"member,label,split,group\na,b,c\n", "line 2 has 3 cells, not 4"),
        (b"member,label,split,group\na,b,c,d,e\n", "line 2 has 5 cells, not 4"),
        (b"member,label,split,group\n\xff,b,c,d\n", "not a readable table"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "raw.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{message}.*dvc repro ingest"):
        list(read_raw_table(path).rows)


def test_a_missing_table_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro ingest"):
        read_raw_table(tmp_path / "raw.csv")


def write_images(path: Path, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    write_table(path, (*IMAGE_COLUMNS, *names), ((row[0], "male", "test", "", "abc", *row[1:]) for row in rows))
    return path


def test_attributes_come_in_the_order_of_the_images_asked_for(tmp_path: Path) -> None:
    rows = [("c.jpg", "60+", ""), ("=a.jpg", "+1", "x"), ("b.jpg", "0-9", "y")]
    path = write_images(tmp_path / "images.csv", ("=age", "race"), rows)
    assert read_attributes(path, ["b.jpg", "=a.jpg"]) == Attributes(("=age", "race"), [("0-9", "y"), ("+1", "x")])


def test_a_column_with_too_many_values_is_left_out(tmp_path: Path) -> None:
    """The values of the images asked for count, not those of the others."""
    rows = [(f"{n}.jpg", str(n), "ab"[n % 2]) for n in range(MOST_VALUES + 2)]
    path = write_images(tmp_path / "images.csv", ("age", "side"), rows)
    found = read_attributes(path, [row[0] for row in rows[1:]])
    assert (found.names, found.left_out, found.values[0]) == (("side",), ("age",), ("b",))
    assert read_attributes(path, [row[0] for row in rows[2:]]).names == ("age", "side")


def test_a_table_without_attributes_has_none(tmp_path: Path) -> None:
    assert read_attributes(write_images(tmp_path / "images.csv", (), [("a.jpg",)]), ["a.jpg"]) == Attributes()


def test_a_table_that_does_not_fit_the_arrays_is_refused(tmp_path: Path) -> None:
    path = write_images(tmp_path / "images.csv", ("age",), [("a.jpg", "60+")])
    with pytest.raises(DataError, match=r"lacks 2 of 3 images, such as b.jpg; run `dvc repro -f preprocess`"):
        read_attributes(path, ["b.jpg", "a.jpg", "c.jpg"])
    with pytest.raises(DataError, match="no such file; run `dvc repro preprocess`"):
        read_attributes(tmp_path / "nowhere.csv", [])
