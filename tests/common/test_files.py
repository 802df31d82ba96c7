"""Files are whole or absent."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gender_classifier.common.files import build_csv_writer, read_json, replacing, write_csv, write_json, write_text
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


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    code = (
        "import os, pathlib, signal, sys; from gender_classifier.common.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('torn'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    (leftover,) = tmp_path.iterdir()
    assert leftover.read_text() == "torn"
    (tmp_path / "mine.tmp").touch()
    write_json(path, {"a": 1})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "mine.tmp"]


def test_many_files_in_one_folder_do_not_take_ever_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    scan = os.scandir
    monkeypatch.setattr(
        "gender_classifier.common.files.os.scandir", lambda folder: listed.append(folder) or scan(folder)
    )
    for number in range(20):
        write_text(tmp_path / str(number), "x")
    assert len(listed) == 1


def test_several_writers_of_one_path_do_not_tear_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
            assert first != second
            write_text(path, "third")
            assert first.exists()
            assert second.exists()
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    texts = [str(number) * 50_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: [write_text(tmp_path / "a", text) for _ in range(5)], texts))
    assert (tmp_path / "a").read_text() in texts
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("write", [lambda path: write_json(path, {}), lambda path: write_csv(path, ["a"], [])])
def test_planted_links_are_not_followed(tmp_path: Path, write: Callable[[Path], None]) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("precious")
    folder.mkdir()
    for name in ("x.json.tmp", ".x.json.tmp", "x.json"):
        (folder / name).symlink_to(victim)
    write(folder / "x.json")
    assert victim.read_text() == "precious"
    assert not (folder / "x.json").is_symlink()


def test_a_link_planted_under_the_very_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".a-0123456789abcdef.tmp").symlink_to(tmp_path / "victim")
    monkeypatch.setattr("gender_classifier.common.files.secrets.token_hex", lambda _: "0123456789abcdef")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a", "x")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(("umask", "private", "mode"), [(0o022, False, 0o644), (0o077, False, 0o600), (0, True, 0o600)])
def test_files_have_the_mode_that_the_umask_says(tmp_path: Path, umask: int, private: bool, mode: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a", private=private) as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "\u00e4" * 127):
        write_text(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("gender_classifier.common.files.fcntl.flock", fail)
    (tmp_path / ".a-0123456789abcdef.tmp").touch()
    write_text(tmp_path / "a", "x")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".a-0123456789abcdef.tmp", "a"]


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_csv_has_a_header_and_unix_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["x", "name"], [[1, "a,b"], [2, "c"]])
    assert (tmp_path / "a.csv").read_bytes() == b'x,name\n1,"a,b"\n2,c\n'


@settings(deadline=None)
@given(ROWS)
@example([["Icon\r", " b "], ["\r\n", "\n\r"], ["a\rb", '"'], ['","', "'\t"], ["\u2028", "\x85\x0c"], ["", "\ufeff"]])
def test_any_text_survives_csv(rows: list[list[str]]) -> None:
    written, plain = io.StringIO(newline=""), io.StringIO(newline="")
    build_csv_writer(written).writerows(rows)
    assert list(csv.reader(io.StringIO(written.getvalue(), newline=""))) == rows
    csv.writer(plain, lineterminator="\n").writerows(rows)
    if not any("\r" in field for row in rows for field in row):
        assert written.getvalue() == plain.getvalue()


def test_a_file_of_odd_names_is_read_back(tmp_path: Path) -> None:
    rows = [["Icon\r", " b "], ["\r\n", "\n\r"], ['","', "\u2028"]]
    write_csv(tmp_path / "a.csv", ["x", "y"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["x", "y"], *rows]


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
