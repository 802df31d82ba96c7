"""What the store has not received: in order, whole or not at all, for one store only."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gender_classifier.track.outbox import Outbox, find_outboxes, find_strays


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
    assert len(list(tmp_path.rglob("journal.jsonl"))) == 1
    assert not [path for path in tmp_path.rglob("*") if "secret" in str(path)]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "secret" in path.read_text()]


def journal_of(box: Outbox) -> Path:
    (found,) = box.place.glob("*.jsonl")
    return found


def write_old_box(folder: Path, store: str, *entries: dict[str, object]) -> Path:
    """Write a box as the versions before did: one journal a run, which names its store in the first line."""
    folder.mkdir(parents=True)
    lines = [{"store": hashlib.sha256(store.encode()).hexdigest()}, *entries]
    (folder / "journal.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder / "journal.jsonl"


def tag(number: int) -> dict[str, object]:
    return {"kind": "tags", "tags": {"number": str(number)}}


def numbers(box: Outbox) -> list[int]:
    return [int(entry["tags"]["number"]) for entry, _ in box.entries()]


def test_a_torn_last_line_is_left_out_and_costs_no_later_one(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "run1", "sqlite:///a")
    box.append(tag(1))
    with journal_of(box).open("a") as file:
        file.write('{"kind": "tags", "ta')
    assert (numbers(box), box.count_torn()) == ([1], 1)
    box.append(tag(2))
    assert (numbers(box), box.count_torn()) == ([1, 2], 1)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(1, 4), cut=st.integers(0, 10_000), after=st.integers(0, 2))
def test_a_journal_cut_at_any_byte_loses_the_torn_entry_alone(
    tmp_path: Path, before: int, cut: int, after: int
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        box = Outbox(Path(folder) / "run1", "sqlite:///a")
        for number in range(before):
            box.append(tag(number))
        data = journal_of(box).read_bytes()
        keep = cut % (len(data) + 1)
        journal_of(box).write_bytes(data[:keep])
        for number in range(before, before + after):
            box.append(tag(number))
        # An entry is whole if all but its line feed is there.
        kept = [number for number in range(before) if len(b"".join(data.splitlines(True)[: number + 1])) <= keep + 1]
        assert numbers(box) == [*kept, *range(before, before + after)]
        assert box.count_torn() <= 1


@pytest.mark.parametrize("torn", [*range(0, 90, 9), 3, 80])
@pytest.mark.parametrize("is_joined", [False, True])
def test_an_old_box_whose_first_line_is_torn_is_read(tmp_path: Path, torn: int, is_joined: bool) -> None:
    store = "http://u:secret@mlflow.example.org"
    path = write_old_box(tmp_path / "run1", store, tag(1), tag(2))
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first[:torn] + (b"" if is_joined else b"\n") + rest)
    assert numbers(Outbox(tmp_path / "run1", store)) == [1, 2]


def test_an_old_box_is_read_before_the_new_one_and_both_are_cleared(tmp_path: Path) -> None:
    write_old_box(
        tmp_path / "run1", "sqlite:mlflow.db", tag(1), {"kind": "artifact", "file": "files/1/a", "folder": None}
    )
    (tmp_path / "run1" / "files" / "1").mkdir(parents=True)
    (tmp_path / "run1" / "files" / "1" / "a").write_text("old")
    box = Outbox(tmp_path / "run1", "sqlite:mlflow.db")
    box.append(tag(2))
    (_, _), (_, copy), (_, _) = box.entries()
    assert copy is not None
    assert copy.read_text() == "old"
    assert [one.run_id for one in find_outboxes(tmp_path, "sqlite:mlflow.db")] == ["run1"]
    assert find_outboxes(tmp_path, "http://another") == []
    assert find_strays(tmp_path, "http://another") == ["run1"]
    box.clear()
    assert (box.is_empty, [path.name for path in tmp_path.iterdir()]) == (True, ["run1.lock"])


@pytest.mark.parametrize("is_old", [False, True])
def test_each_store_has_a_journal_of_its_own(tmp_path: Path, is_old: bool) -> None:
    first, second = (Outbox(tmp_path / "run1", f"http://{name}.example.org") for name in ("first", "second"))
    if is_old:
        write_old_box(first.folder, first.store, tag(1))
    else:
        first.append(tag(1))
    assert (first.is_empty, second.is_empty) == (False, True)
    second.append(tag(2))
    assert (numbers(first), numbers(second)) == ([1], [2])
    second.clear()
    assert (numbers(first), second.is_empty) == ([1], True)
    assert find_strays(tmp_path, second.store) == ["run1"]
    assert find_strays(tmp_path, first.store) == []


@pytest.mark.parametrize(
    "address",
    [
        "https://you:new@mlflow.example.org", "https://mlflow.example.org/", "HTTPS://mlflow.example.org",
        "https://token@mlflow.example.org", "https://you:a/b#c?d@mlflow.example.org",
        "https://mlflow.example.org?password=secret",
    ],
)  # fmt: skip
def test_another_password_is_the_same_store(tmp_path: Path, address: str) -> None:
    Outbox(tmp_path / "run1", "https://you:old@mlflow.example.org").append(tag(1))
    assert numbers(Outbox(tmp_path / "run1", address)) == [1]
    for other in ("https://mlflow.example.com", "https://mlflow.example.org:5000", "https://mlflow.example.org/a"):
        assert numbers(Outbox(tmp_path / "run1", other)) == []


def test_what_is_set_aside_is_kept_and_can_be_put_back(tmp_path: Path) -> None:
    write_old_box(tmp_path / "run1", "http://a", tag(1))
    box = Outbox(tmp_path / "run1", "http://a")
    aside = box.set_aside()
    assert (box.is_empty, find_outboxes(tmp_path, "http://a"), find_strays(tmp_path, "http://b")) == (True, [], [])
    aside.rename(box.place)
    box.append(tag(2))
    assert numbers(box) == [1, 2]
    aside = box.set_aside()
    box.append(tag(3))
    assert numbers(box) == [3]
    assert box.set_aside() != aside
    assert len(list(tmp_path.rglob("journal.jsonl"))) == 2


def test_only_the_user_can_read_a_box(tmp_path: Path) -> None:
    base = tmp_path / ".mlflow-unsent"
    base.mkdir(mode=0o755)
    (tmp_path / "figures" / "deep").mkdir(parents=True)
    (tmp_path / "figures" / "deep" / "one.png").write_bytes(b"png")
    before = os.umask(0)
    try:
        box = Outbox(base / "run1", "http://a")
        box.append(tag(1))
        box.append({"kind": "artifact", "folder": None}, tmp_path / "figures")
        box.append({"kind": "artifact", "folder": None}, tmp_path / "figures" / "deep" / "one.png")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (base, *base.rglob("*")) if path.suffix != ".lock"}
    assert len(modes) > 8
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    base.chmod(0o755)
    find_outboxes(base, "http://b")
    assert base.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Outbox(tmp_path / "run1", "http://a")
    box.append(tag(1))
    write, calls = os.write, []

    def fail(descriptor: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:9])

    monkeypatch.setattr("gender_classifier.track.outbox.os.write", fail)
    with pytest.raises(OSError, match="No space left on device: .*journal.jsonl"):
        box.append(tag(2))
    monkeypatch.undo()
    assert (numbers(box), box.count_torn()) == ([1], 0)


def test_an_entry_whose_copy_was_lost_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    box = Outbox(tmp_path / "run1", "http://a")
    box.append({"kind": "artifact", "folder": None}, tmp_path / "a.txt")
    box.append(tag(1))
    shutil.rmtree(box.place / "files")
    assert (numbers(box), box.count_torn()) == ([1], 1)
