"""What the store has not received: in order, whole or not at all, for one store only."""

from __future__ import annotations

from pathlib import Path

from gender_classifier.track.outbox import Outbox, find_outboxes


def test_entries_come_back_in_order_with_copies_of_their_files(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "run1", "sqlite:///a")
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
    assert [one.run_id for one in find_outboxes(tmp_path, "sqlite:///a")] == ["run1"]
    box.clear()
    assert box.is_empty
    assert find_outboxes(tmp_path, "sqlite:///a") == []


def test_another_store_gets_nothing_and_its_address_is_not_on_disk(tmp_path: Path) -> None:
    Outbox(tmp_path / "run1", "postgresql://u:secret@db/mlflow").append({"kind": "tags", "tags": {}})
    assert list(Outbox(tmp_path / "run1", "sqlite:///a").entries()) == []
    assert find_outboxes(tmp_path, "sqlite:///a") == []
    assert "secret" not in (tmp_path / "run1" / "journal.jsonl").read_text()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "run1", "sqlite:///a")
    box.append({"kind": "tags", "tags": {"a": "1"}})
    with (tmp_path / "run1" / "journal.jsonl").open("a") as file:
        file.write('{"kind": "tags", "ta')
    assert [entry for entry, _ in box.entries()] == [{"kind": "tags", "tags": {"a": "1"}}]
