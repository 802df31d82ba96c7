"""What was held back reaches its own store, whole; what is refused keeps back nothing else."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import client
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from gender_classifier.cli.main import main
from gender_classifier.common.paths import Layout
from gender_classifier.errors import TrackingError
from gender_classifier.track.outbox import Outbox, find_outboxes
from gender_classifier.track.run import TrackedRun, catch_up, track
from gender_classifier.track.store import name_store


def hold_back(root: Path, run_id: str, entry: dict[str, object], uri: str | None = None) -> Outbox:
    store = name_store(uri or client(root).tracking_uri, root)
    box = Outbox(Layout(root).outbox_dir / run_id, store)
    box.append(entry)
    return box


def tag(value: str) -> dict[str, object]:
    return {"kind": "tags", "tags": {"late": value}}


def late(root: Path, run_id: str) -> str | None:
    return client(root).get_run(run_id).data.tags.get("late")


def open_runs(root: Path, count: int) -> list[str]:
    runs = []
    for _ in range(count):
        with track("train", root, params={"lr": 1}) as run:
            runs.append(run.run_id)
    return runs


def test_another_address_leaves_what_is_held_back_for_the_first(
    root: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_id,) = open_runs(root, 1)
    other = tmp_path / "other.db"
    shutil.copy(root / "mlflow.db", other)  # the run is known there as well
    hold_back(root, run_id, tag("first"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    with track("train", root, params={"lr": 1}, resume=run_id) as run:
        run.set_tags({"x": 1})
    assert run.run_id == run_id
    monkeypatch.chdir(root)
    assert main(["sync"]) == 0
    assert re.search("sync: 1 runs in .* have entries for stores at other addresses", capsys.readouterr().out)
    assert late(root, run_id) is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "sync: 1 runs completed, 0 marked KILLED, 0 experiment names added\n"
    assert late(root, run_id) == "first"


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "params", "params": [["lr", "2"]]},
        {"kind": "unheard of"},
        {},
        {"kind": "metrics", "metrics": [["loss"]]},
        {"kind": "params", "params": 5},
        {"kind": "tags", "tags": []},
        {"kind": "end", "status": "NO SUCH"},
    ],
)
def test_a_refused_box_keeps_back_no_other_and_is_named(
    entry: dict[str, object], root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = sorted(open_runs(root, 3))
    boxes = [hold_back(root, run_id, entry if run_id == runs[1] else tag("yes")) for run_id in runs]
    monkeypatch.chdir(root)
    assert main(["sync"]) == 0
    out, errors = capsys.readouterr()
    assert out == "sync: 2 runs completed, 0 marked KILLED, 0 experiment names added\n"
    assert errors.count("\n") == 1
    assert f"MLflow refuses what run {runs[1]} holds back" in errors
    assert [late(root, run_id) for run_id in runs] == ["yes", None, "yes"]
    (kept,) = boxes[1].folder.glob("refused-*/journal.jsonl")
    assert f"it is kept in {kept.parent}: remove it, or rename the folder to {boxes[1].place.name}" in errors
    assert main(["sync"]) == 0
    assert capsys.readouterr().err == ""


def test_a_box_of_a_run_that_was_deleted_for_good_is_set_aside(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold_back(root, "0" * 32, tag("x"))
    assert catch_up(client(root), root) == (0, 0)
    assert f"refuses what run {'0' * 32} holds back" in capsys.readouterr().err


def test_a_box_that_fails_stays_and_keeps_back_no_other(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = sorted(open_runs(root, 2))
    (root / "a.txt").touch()
    hold_back(root, runs[0], tag("x"))
    Outbox(Layout(root).outbox_dir / runs[0], name_store(client(root).tracking_uri, root)).append(
        {"kind": "artifact", "folder": None}, root / "a.txt"
    )
    hold_back(root, runs[1], tag("yes"))

    def fail(*_: object) -> None:
        raise RuntimeError("the bucket's library has errors of its own")

    monkeypatch.setattr(MlflowClient, "log_artifact", fail)
    assert catch_up(client(root), root) == (1, 0)
    assert f"what run {runs[0]} holds back for MLflow cannot be sent (the bucket's library" in caplog.text
    assert late(root, runs[1]) == "yes"
    monkeypatch.undo()
    assert catch_up(client(root), root) == (1, 0)
    assert [item.path for item in client(root).list_artifacts(runs[0])] == ["a.txt"]


def test_a_torn_line_is_told_once_and_the_rest_is_sent(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run_id,) = open_runs(root, 1)
    box = hold_back(root, run_id, tag("first"))
    with (box.place / "journal.jsonl").open("a") as file:
        file.write('{"kind": "ta')
    hold_back(root, run_id, tag("last"))
    assert catch_up(client(root), root) == (1, 0)
    assert late(root, run_id) == "last"
    errors = caplog.text
    assert f"run {run_id} lacks 1 of the entries held back for it" in errors
    assert errors.count("\n") == 1
    caplog.clear()
    assert catch_up(client(root), root) == (0, 0)
    assert caplog.text == ""


def test_a_refusal_of_what_was_held_back_does_not_end_the_stage(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = MlflowClient.log_batch

    def fail(*_: object, **__: object) -> None:
        raise MlflowException("Connection refused")

    with track("train", root, params={"lr": 1}) as run:
        monkeypatch.setattr(MlflowClient, "log_batch", fail)
        run.log_params({"lr": 2})
        monkeypatch.setattr(MlflowClient, "log_batch", real)
    assert "refuses what run" in caplog.text
    assert client(root).get_run(run.run_id).info.status == "FINISHED"
    assert find_outboxes(Layout(root).outbox_dir, name_store(client(root).tracking_uri, root)) == []


def test_full_paths_stay_on_this_machine_and_their_run_goes_on(root: Path) -> None:
    client(root).create_experiment("gender-classifier", artifact_location=(root / "mlartifacts").as_uri())
    with track("train", root, params={"source": "/home/me/faces.zip", "evaluate.extra.x": "~/private/x"}) as run:
        pass
    found = client(root).get_run(run.run_id)
    assert found.data.params == {"source": "faces.zip", "evaluate.extra.x": "x"}
    old = client(root).create_run(found.info.experiment_id)
    client(root).log_param(old.info.run_id, "source", "/home/me/faces.zip")  # as earlier versions did
    with track("train", root, params={"source": "/home/me/faces.zip", "lr": 1}, resume=old.info.run_id) as run:
        pass
    assert run.run_id == old.info.run_id
    assert client(root).get_run(run.run_id).data.params["lr"] == "1"


def test_a_direct_refusal_is_an_error_still(root: Path) -> None:
    def log(run: TrackedRun) -> None:
        run.log_params({"lr": 2})

    with pytest.raises(TrackingError, match="check the store"), track("train", root, params={"lr": 1}) as run:
        log(run)
