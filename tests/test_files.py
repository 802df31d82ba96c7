"""Files are whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gender_classifier.errors import DataError
from gender_classifier.files import read_json, replacing, write_csv, write_json


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


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as temporary:
        temporary.touch()
        leftover = temporary.name
    (tmp_path / leftover).write_text("torn")
    write_json(path, {"a": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_csv_has_a_header_and_unix_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["x", "name"], [[1, "a,b"], [2, "c"]])
    assert (tmp_path / "a.csv").read_bytes() == b'x,name\n1,"a,b"\n2,c\n'


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
