"""Decisions about labels: read strictly, written whole, merged by image."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.cli.main import main
from gender_classifier.data.corrections import (
    CORRECTION_COLUMNS,
    Correction,
    edit_corrections,
    merge_corrections,
    read_corrections,
    write_corrections,
)
from gender_classifier.errors import DataError

TIME = "2026-01-31T09:30:00Z"
HEADER = ",".join(CORRECTION_COLUMNS) + "\n"
ONE = Correction("1" * 64, "Training/male/1.jpg", "male", "female", TIME)
GOOD = f"{'1' * 64},a.jpg,male,female,{TIME}\n"


def test_the_file_in_git_is_tracked_and_readable() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "data"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "data/corrections.csv" in tracked
    read_corrections(ROOT / "data" / "corrections.csv")


def test_any_name_and_class_comes_back_and_equal_decisions_give_equal_bytes(tmp_path: Path) -> None:
    odd = Correction("0" * 64, '=1+1, "a"\r\n\ud83d.jpg'.encode("utf-8", "replace").decode(), "60+", "=b", TIME)
    removed = replace(ONE, sha256="f" * 64, label_after="")
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    write_corrections(one, [removed, odd, ONE])
    write_corrections(other, [ONE, odd, removed])
    assert one.read_bytes() == other.read_bytes()
    found = read_corrections(one)
    assert list(found.values()) == [odd, ONE, removed]
    assert [found[key].is_removal for key in found] == [False, False, True]


def test_a_file_from_a_spreadsheet_has_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(HEADER + GOOD, encoding="utf-8-sig")
    assert read_corrections(tmp_path / "c.csv")["1" * 64].line == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 lacks the column sha256, path"),
        ("sha256;path\n", "line 1 lacks the column"),
        (HEADER.replace("decided_at", "decided_at,note"), "line 1 has the column 'note' besides"),
        (HEADER + GOOD + "1,2\n", "line 3 has 2 cells, not 5; correct the line, or remove it"),
        (HEADER + f"{'A' * 64},a,b,c,{TIME}\n", "line 2: sha256 is 'AAA"),
        (HEADER + f"{'1' * 64},a,,c,{TIME}\n", "line 2: label_before is empty"),
        (HEADER + f"{'1' * 64},a,b,c,yesterday\n", "line 2: decided_at is 'yesterday'; enter a time such as"),
        (HEADER + f"{'1' * 64},a,b,c,2026-01-31T09:30:00\n", "line 2: decided_at is '2026"),
        (HEADER + GOOD + GOOD, r"line 3 repeats the image of line 2 \('a.jpg'\)"),
        (HEADER + f'{"1" * 64},"a', "not a readable table"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_corrections(tmp_path / "c.csv")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; check the path, or restore it: git checkout"):
        read_corrections(tmp_path / "c.csv")


def test_an_edit_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    write_corrections(path, [ONE])
    before = path.read_bytes(), path.stat().st_mtime_ns

    def fail() -> None:
        with edit_corrections(path) as corrections:
            corrections.clear()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with edit_corrections(path):
        pass  # nothing is changed: not written either, or DVC would hash it again
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


DECISIONS = st.builds(
    Correction,
    st.sampled_from(["1" * 64, "2" * 64, "3" * 64]),
    st.sampled_from(["a.jpg", "b.jpg"]),
    st.sampled_from(["female", "male"]),
    st.sampled_from(["", "female", "male"]),
    st.sampled_from([TIME, "2026-01-31T10:30:00+01:00", "2026-01-31T09:30:01Z"]),
)
FILES = st.lists(DECISIONS, unique_by=lambda found: found.sha256).map(lambda rows: {row.sha256: row for row in rows})


@given(FILES, FILES)
def test_merging_keeps_every_image_and_the_later_decision_in_either_order(
    first: dict[str, Correction], second: dict[str, Correction]
) -> None:
    merged, disagreements = merge_corrections(first, second)
    assert merged == merge_corrections(second, first)[0]
    assert set(merged) == set(first) | set(second)
    for sha256, kept in merged.items():
        given_rows = [rows[sha256] for rows in (first, second) if sha256 in rows]
        assert kept in given_rows
        assert kept.time == max(row.time for row in given_rows)
        is_disputed = len({(row.label_before, row.label_after) for row in given_rows}) == 2
        assert is_disputed == (sha256 in {found.kept.sha256 for found in disagreements})
    assert merge_corrections(merged, second)[0] == merged


def test_the_command_merges_and_names_each_disagreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dvc.yaml").touch()
    path, theirs = tmp_path / "data" / "corrections.csv", tmp_path / "theirs.csv"
    two, three = replace(ONE, sha256="2" * 64, path="two.jpg"), replace(ONE, sha256="3" * 64)
    write_corrections(path, [ONE, two])
    later = replace(two, label_after="", decided_at="2026-02-01T00:00:00Z")
    write_corrections(theirs, [ONE, later, three])
    monkeypatch.chdir(tmp_path / "data")
    assert main(["review", "--merge", str(theirs)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"two.jpg (222222222222): removal of 2026-02-01T00:00:00Z replaces 'female' of {TIME}",
        f"{path}: 1 decisions added, 1 disagreements, 3 in all",
    ]
    assert list(read_corrections(path).values()) == [ONE, later, three]
    theirs.write_text("nonsense")
    before = path.read_bytes()
    assert main(["review", "--merge", str(theirs)]) == 1
    assert path.read_bytes() == before
    assert "theirs.csv: line 1 lacks the column" in capsys.readouterr().err
