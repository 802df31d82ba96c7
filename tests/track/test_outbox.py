"""Entries the store has not received: in order, whole or not at all, each store's own, and nobody else's to read."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gender_classifier.track.outbox import Outbox, _digest, find_outboxes, open_outbox

A, B = "sqlite:a", "http://tracking.example"


def tag(name: str) -> dict[str, object]:
    return {"kind": "tags", "tags": {name: "1"}}


def names(box: Outbox) -> list[str]:
    return [next(iter(entry["tags"])) for entry, _ in box.entries()]


def test_entries_come_back_in_order_with_copies_of_their_files(tmp_path: Path) -> None:
    box = open_outbox(tmp_path, A, "run1")
    assert box.is_empty
    (tmp_path / "curves.csv").write_text("old")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.png").write_bytes(b"png")
    box.append({"kind": "metrics", "metrics": [["loss", 0.5, 1, 1]]})
    box.append({"kind": "artifact", "folder": "metrics"}, tmp_path / "curves.csv")
    box.append({"kind": "artifact", "folder": None}, tmp_path / "figures")
    (tmp_path / "curves.csv").write_text("new")
    entries = list(box.entries())
    assert [entry["kind"] for entry, _ in entries] == ["metrics", "artifact", "artifact"]
    assert entries[0] == ({"kind": "metrics", "metrics": [["loss", 0.5, 1, 1]]}, None)
    copies = [path for _, path in entries[1:]]
    assert copies[0] is not None
    assert copies[1] is not None
    assert (copies[0].name, copies[0].read_text()) == ("curves.csv", "old")
    assert (copies[1] / "one.png").read_bytes() == b"png"
    assert [found.run_id for found in find_outboxes(tmp_path, A)] == ["run1"]
    box.clear()
    assert box.is_empty
    assert find_outboxes(tmp_path, A) == []


def test_each_store_has_a_box_of_its_own(tmp_path: Path) -> None:
    """A run that goes on at another address: what the first one missed is still there for it."""
    first, second = open_outbox(tmp_path, A, "run1"), open_outbox(tmp_path, B, "run1")
    first.append(tag("a"))
    second.append(tag("b"))
    assert (names(first), names(second)) == (["a"], ["b"])
    second.clear()
    assert names(first) == ["a"]
    assert [names(box) for box in find_outboxes(tmp_path, A)] == [["a"]]
    assert find_outboxes(tmp_path, B) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.integers(0, 400))
def test_a_tear_anywhere_loses_the_torn_entry_alone(tmp_path_factory: pytest.TempPathFactory, keep: int) -> None:
    """A power cut or a full disk cuts the journal at any byte; what is appended later is whole."""
    box = open_outbox(tmp_path_factory.mktemp("box"), A, "run1")
    for number in range(4):
        box.append(tag(f"n{number}"))
    journal = box.folder / "journal.jsonl"
    whole = journal.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    keep = min(keep, len(whole))
    journal.write_bytes(whole[:keep])
    for number in (4, 5):
        box.append(tag(f"n{number}"))
    # An entry is whole if at most its line feed is missing.
    survivors = [f"n{number}" for number, end in enumerate(ends) if end - 1 <= keep]
    assert names(box) == [*survivors, "n4", "n5"]


def test_a_refused_box_is_set_aside_and_found_by_nobody(tmp_path: Path) -> None:
    box = open_outbox(tmp_path, A, "run1")
    box.append(tag("a"))
    first = box.set_aside()
    box.append(tag("b"))
    assert [found.run_id for found in find_outboxes(tmp_path, A)] == ["run1"]
    assert box.set_aside() != first
    assert find_outboxes(tmp_path, A) == []
    assert names(Outbox(first)) == ["a"]


def test_boxes_of_earlier_versions_are_adopted_by_their_store(tmp_path: Path) -> None:
    for run_id, store in (("run1", A), ("run2", B)):
        folder = tmp_path / run_id
        folder.mkdir()
        lines = [{"store": _digest(store)}, tag(run_id)]
        (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [names(box) for box in find_outboxes(tmp_path, A)] == [["run1"]]
    assert (tmp_path / "run2" / "journal.jsonl").is_file()
    assert [names(box) for box in find_outboxes(tmp_path, B)] == [["run2"]]


def test_a_torn_first_line_of_an_earlier_version_loses_no_entry(tmp_path: Path) -> None:
    folder = tmp_path / "run1"
    folder.mkdir()
    (folder / "journal.jsonl").write_text('{"store": "3f\n' + json.dumps(tag("a")) + "\n")
    assert [names(box) for box in find_outboxes(tmp_path, A)] == [["a"]]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    base = tmp_path / "unsent"
    box = open_outbox(base, "postgresql://db/mlflow", "run1")
    (tmp_path / "a.txt").touch()
    box.append({"kind": "artifact", "folder": None}, tmp_path / "a.txt")
    for folder in (base, box.folder.parent, box.folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((box.folder / "journal.jsonl").stat().st_mode) == 0o600


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    box = open_outbox(tmp_path, A, "run1")
    box.folder.mkdir(parents=True)
    (box.folder / "journal.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        box.append(tag("a"))
    assert not (tmp_path / "elsewhere").exists()
