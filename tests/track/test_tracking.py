"""Runs on a real SQLite store: named, tagged, closed as they ended; data and models in their own experiments."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from conftest import client
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from gender_classifier.common.files import short_digest
from gender_classifier.common.processes import _Stop, stop
from gender_classifier.errors import DataError, TrackingError
from gender_classifier.track.delivery import catch_up
from gender_classifier.track.experiments import name_experiments
from gender_classifier.track.run import TrackedRun, track
from gender_classifier.track.store import find_tracking_uri, fluent, patience


def test_everything_logged_is_read_back(root: Path) -> None:
    (root / "report.json").write_text("{}")
    many = {f"key.{number}": number for number in range(250)}
    with track("train", root, params={}) as run:
        run.log_params(many)
        for epoch in (1, 2):
            run.log_metrics({"val/loss": 1 / epoch, "broken": float("nan")}, step=epoch)
        run.set_tags({"data.digest": "abc"})
        run.log_artifact(root / "report.json", "metrics")
        run.log_dataset("faces", "0123456789abcdef" * 4, "training", {"train": 10})
    found = client(root).get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {key: str(value) for key, value in many.items()}
    assert found.data.metrics == {"val/loss": 0.5}
    assert found.data.tags["data.digest"] == "abc"
    assert found.data.tags["dvc.stage"] == "train"
    assert [point.step for point in client(root).get_metric_history(run.run_id, "val/loss")] == [1, 2]
    assert [item.path for item in client(root).list_artifacts(run.run_id, "metrics")] == ["metrics/report.json"]
    assert found.inputs.dataset_inputs[0].dataset.digest == short_digest("0123456789abcdef" * 4) == "0123456789abcdef"
    assert found.info.artifact_uri.startswith((root / "mlartifacts").as_uri())


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")]
)
def test_a_run_is_closed_as_it_ended(root: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), track("verify", root, params={}, data=True) as run:
        raise error
    found = client(root).get_run(run.run_id)
    assert found.info.status == status
    assert found.data.tags.get("error") == ("ValueError: x" if status == "FAILED" else None)


def test_a_failed_run_says_why_in_one_line_until_it_goes_on(root: Path) -> None:
    message = f"{root}/params.yaml: is\nnot /home/me/my.zip, at https://you:secret@example.org/a/b"
    with pytest.raises(DataError), track("train", root, params={}) as run:
        raise DataError(message)
    failed = client(root).get_run(run.run_id)
    assert failed.data.tags["error"] == "params.yaml: is not my.zip, at https://***@example.org/a/b"
    with track("train", root, params={}, resume=run.run_id):
        pass
    assert "error" not in client(root).get_run(run.run_id).data.tags


def test_tags_that_people_look_for_come_first(root: Path) -> None:
    with track("train", root, params={}, tags={"data.digest": "abc"}, key="k") as run:
        pass
    shown = [key for key in client(root).get_run(run.run_id).data.tags if not key.startswith("mlflow.")]
    assert shown == ["dvc.stage", "data.digest", "process.host", "process.pid", "process.started", "work"]


@pytest.fixture
def stoppable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have SIGUSR1 stop this process as SIGTERM stops a stage."""
    monkeypatch.setattr("gender_classifier.common.processes._stop", _Stop())
    before = signal.signal(signal.SIGUSR1, lambda *_: stop(SystemExit(143)))
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_stop_that_a_library_turned_into_an_error_is_no_failure(root: Path, stoppable: None) -> None:
    with contextlib.suppress(SystemExit):
        signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(ValueError, match="x"), track("verify", root, params={}, data=True) as run:
        raise ValueError("x")
    assert client(root).get_run(run.run_id).info.status == "KILLED"


def test_a_stop_within_a_transaction_waits_for_its_end(root: Path, stoppable: None) -> None:
    """Else a statement on the stack keeps the database locked, and this process waits for itself to close the run."""

    def interrupt(*event: Any) -> None:
        if "INSERT" in event[2]:
            sqlalchemy.event.remove(sqlalchemy.Engine, "after_cursor_execute", interrupt)
            signal.raise_signal(signal.SIGUSR1)

    began = 0.0

    def log() -> None:
        nonlocal began, run_id
        with track("train", root, params={}) as run:
            run_id = run.run_id
            sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", interrupt)
            began = time.monotonic()
            run.log_metrics({"val/loss": 1.0}, step=1)
            pytest.fail("went on after the signal")

    began, run_id = 0.0, ""
    with pytest.raises(SystemExit, match="143"):
        log()
    assert time.monotonic() - began < 10  # SQLite waits for a lock for 20 s
    found = client(root).get_run(run_id)
    assert (found.info.status, found.data.metrics) == ("KILLED", {"val/loss": 1.0})


def test_a_server_that_does_not_answer_keeps_nobody_from_stopping(stoppable: None) -> None:
    def ask() -> None:
        with patience("http://127.0.0.1:9", 20):
            signal.raise_signal(signal.SIGUSR1)
            pytest.fail("went on after the signal")

    with pytest.raises(SystemExit, match="143"):
        ask()


def test_dvcs_names_are_the_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-trek")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    monkeypatch.setenv("DVC_ROOT", str(root))
    with (
        track("train", root / "elsewhere", params={}) as model,
        track("verify", root / "elsewhere", params={}, data=True) as data,
    ):
        pass
    found = client(root).get_run(model.run_id)
    assert found.info.run_name == found.data.tags["dvc.exp"] == "puffy-trek"
    assert found.data.tags["dvc.baseline"] == found.data.tags["mlflow.source.git.commit"] == "a" * 40
    assert client(root).get_run(data.run_id).info.run_name == "verify puffy-trek"
    names = {experiment.name for experiment in client(root).search_experiments()}
    assert names == {"Default", "gender-classifier", "gender-classifier-data"}
    assert not (root / "elsewhere").exists()


def test_evaluation_goes_on_with_the_training_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with track("train", root, params={}) as first:
        first.log_metrics({"val/loss": 1.0})
    with track("evaluate", root, params={}, resume=first.run_id) as second:
        second.log_metrics({"test/loss": 2.0})
    assert second.run_id == first.run_id
    found = client(root).get_run(first.run_id)
    assert (found.data.metrics, found.info.status) == ({"val/loss": 1.0, "test/loss": 2.0}, "FINISHED")
    assert capsys.readouterr().out == ""


def test_an_unknown_run_is_opened_anew_and_says_so(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with track("evaluate", root, params={}, resume="0" * 32) as run:
        pass
    assert run.run_id != "0" * 32
    assert client(root).get_run(run.run_id).data.tags["continues"] == "0" * 32
    assert "run 00000000000000000000000000000000 is not in the MLflow store" in caplog.text


def test_the_environment_names_store_and_experiment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_tracking_uri(root) == f"sqlite:///{root.resolve() / 'mlflow.db'}"
    other = root / "other"
    other.mkdir()
    (root / "mlflow.db").rename(other / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    with track("train", root, params={}), track("verify", root, params={}, data=True):
        pass
    assert {one.name for one in client(other).search_experiments()} == {"Default", "ours", "ours-data"}
    assert not (root / "mlflow.db").exists()


def test_a_deleted_experiment_says_what_to_do(root: Path) -> None:
    with track("train", root, params={}):
        pass
    found = client(root).get_experiment_by_name("gender-classifier")
    assert found is not None
    client(root).delete_experiment(found.experiment_id)
    with pytest.raises(TrackingError, match="is deleted; restore it"), track("train", root, params={}):
        pass


def test_mlflows_errors_are_one_line(root: Path) -> None:
    opened = []

    def log_twice() -> None:
        with track("train", root, params={}) as run:
            opened.append(run.run_id)
            run.log_params({"lr": 1})
            run.log_params({"lr": 2})

    with pytest.raises(TrackingError, match="check the store") as caught:
        log_twice()
    assert "\n" not in str(caught.value)
    assert client(root).get_run(opened[0]).info.status == "FAILED"


def test_two_processes_may_create_the_store_at_once(tmp_path: Path) -> None:
    code = "import pathlib; from gender_classifier.track.run import track\nwith track('train', pathlib.Path.cwd(), params={}): pass"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, env={**os.environ})
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    found = client(tmp_path).get_experiment_by_name("gender-classifier")
    assert found is not None
    assert len(client(tmp_path).search_runs([found.experiment_id])) == 2


class Outage:
    """Makes every call of MLflow's client fail as an unreachable server does, while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on, self.calls = False, 0
        for name in ("log_batch", "log_inputs", "log_artifact", "log_artifacts", "set_terminated"):
            monkeypatch.setattr(MlflowClient, name, self._wrap(getattr(MlflowClient, name)))
        monkeypatch.setattr("gender_classifier.track.run.time.monotonic", lambda: self.clock)
        self.clock = 0.0

    def _wrap(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            self.calls += 1
            if self.on:
                raise MlflowException("API request failed: Connection refused")
            return real(*arguments, **options)

        return call


def log_epoch(run: TrackedRun, epoch: int) -> None:
    run.log_metrics({"val/loss": 1 / epoch}, step=epoch, timestamp=1000 * epoch)


def history(root: Path, run_id: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(root).get_metric_history(run_id, "val/loss")]


def test_what_an_outage_holds_back_is_sent_once_the_store_is_back(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(monkeypatch)
    (root / "curves.csv").write_text("whole")
    with track("train", root, params={"lr": 1}) as run:
        log_epoch(run, 1)
        outage.on = True
        log_epoch(run, 2)
        before = outage.calls
        log_epoch(run, 3)
        run.log_artifact(root / "curves.csv", "metrics")
        assert outage.calls == before  # it does not ask again at once
        outage.clock += 60
        run.set_tags({"late": "yes"})
        assert outage.calls == before + 1
    errors = caplog.messages
    assert len(errors) == 2
    assert "MLflow does not answer (API request failed: Connection refused); going on without it" in errors[0]
    assert "sent by the next stage that reaches the store, or by `gender-classifier sync`" in errors[1]
    assert history(root, run.run_id) == [(1, 1.0)]
    outage.on = False
    assert catch_up(client(root), root) == (1, 0)
    assert catch_up(client(root), root) == (0, 0)
    found = client(root).get_run(run.run_id)
    assert (found.info.status, found.data.tags["late"]) == ("FINISHED", "yes")
    assert history(root, run.run_id) == [(1, 1.0), (2, 0.5), (3, 0.333333)]
    assert [item.path for item in client(root).list_artifacts(run.run_id, "metrics")] == ["metrics/curves.csv"]
    assert not list((root / ".mlflow-unsent").glob("*/*/"))


def test_a_store_that_comes_back_during_training_gets_all_of_it_in_order(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(monkeypatch)
    with track("train", root, params={}) as run:
        outage.on = True
        log_epoch(run, 1)
        outage.on, outage.clock = False, 1000.0
        log_epoch(run, 2)
        assert history(root, run.run_id) == [(1, 1.0), (2, 0.5)]
    assert client(root).get_run(run.run_id).info.status == "FINISHED"


def test_what_was_sent_before_the_answer_was_lost_is_no_second_point(root: Path) -> None:
    with track("train", root, params={"lr": 1}) as run:
        for _ in range(2):
            log_epoch(run, 1)
            run.log_params({"lr": 1})
            run.log_dataset("faces", "ab" * 32, "training", {"train": 1})
    assert history(root, run.run_id) == [(1, 1.0)]
    assert len(client(root).get_run(run.run_id).inputs.dataset_inputs) == 1


def test_the_next_stage_sends_what_the_last_one_could_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch)
    with track("train", root, params={}) as first:
        outage.on = True
        log_epoch(first, 1)
    outage.on = False
    with track("evaluate", root, params={}, resume=first.run_id) as second:
        assert history(root, first.run_id) == [(1, 1.0)]
    assert second.run_id == first.run_id


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql://someone:secret@127.0.0.1:9/mlflow"])
def test_a_store_that_refuses_stops_the_stage_in_seconds(root: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"MLFLOW_TRACKING_URI") as caught, track("train", root, params={}):
        pass
    assert time.monotonic() - began < 20
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def die_while_tracking(root: Path, *arguments: str) -> str:
    """Run a process that opens a run, logs one epoch unless told ``early``, and is killed; return the run's id."""
    code = (
        "import os, pathlib, signal, sys; from gender_classifier.track.run import track\n"
        "with track('train', pathlib.Path.cwd(), params={'lr': 1}, key='k1') as run:\n"
        "    print(run.run_id, flush=True)\n"
        "    if 'early' not in sys.argv: run.log_metrics({'val/loss': 1.0}, step=1)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -9
    return done.stdout.strip()


def test_a_killed_run_is_marked_and_goes_on(root: Path) -> None:
    run_id = die_while_tracking(root)
    assert client(root).get_run(run_id).info.status == "RUNNING"
    assert catch_up(client(root), root) == (0, 1)
    assert client(root).get_run(run_id).info.status == "KILLED"
    with track("train", root, params={"lr": 1}, resume=run_id, key="k1") as run:
        assert client(root).get_run(run_id).info.status == "RUNNING"
        assert catch_up(client(root), root) == (0, 0)  # its process lives
        run.log_metrics({"val/loss": 0.5}, step=2)
    assert run.run_id == run_id
    assert history(root, run_id) == [(1, 1.0), (2, 0.5)]
    assert client(root).get_run(run_id).info.status == "FINISHED"


def test_a_run_killed_before_its_first_epoch_is_adopted_by_the_same_work_alone(root: Path) -> None:
    run_id = die_while_tracking(root, "early")
    with track("train", root, params={"lr": 2}, key="k2") as other:
        pass
    with track("train", root, params={"lr": 1}, key="k1") as same:
        pass
    assert other.run_id != run_id
    assert same.run_id == run_id


def evaluated(root: Path) -> str:
    """Return a complete row, as `train` and `evaluate` leave it."""
    (root / "curves.png").write_bytes(b"png")
    params = {"lr": 1, "evaluate.ece_bins": 15}
    with track("train", root, params=params) as run:
        log_epoch(run, 1)
        run.log_dataset("faces", "ab" * 32, "training", {"train": 1})
        run.log_artifact(root / "curves.png")
        run.set_tags({"data.digest": "abc"})
    with track("evaluate", root, params=params, resume=run.run_id) as run:
        run.log_metrics({"test/loss": 2.0})
    return run.run_id


def test_another_evaluation_of_a_finished_row_is_a_row_of_its_own(
    root: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluated(root)
    capfd.readouterr()
    monkeypatch.setenv("DVC_EXP_NAME", "more-bins")
    with track("evaluate", root, params={"lr": 1, "evaluate.ece_bins": 30}, resume=first) as run:
        run.log_metrics({"test/loss": 3.0})
    assert f"run {first} belongs to another experiment; opening a new one" in caplog.text
    assert "artifacts" not in capfd.readouterr().err  # MLflow's bars belong on a terminal
    found = client(root).get_run(run.run_id)
    assert (found.info.run_name, found.data.tags["continues"]) == ("more-bins", first)
    assert found.data.params == {"lr": "1", "evaluate.ece_bins": "30"}
    assert found.data.metrics == {"val/loss": 1.0, "test/loss": 3.0}
    assert history(root, run.run_id) == [(1, 1.0)]
    assert found.inputs.dataset_inputs[0].dataset.digest == "ab" * 8
    assert {item.path for item in client(root).list_artifacts(run.run_id)} == {"curves.png"}
    assert found.data.tags["data.digest"] == "abc"
    untouched = client(root).get_run(first)
    assert untouched.data.metrics["test/loss"] == 2.0
    assert untouched.info.run_name != "more-bins"


def test_evaluating_again_under_the_same_name_stays_one_row(root: Path) -> None:
    first = evaluated(root)
    with track("evaluate", root, params={"lr": 1, "evaluate.ece_bins": 15}, resume=first) as run:
        pass
    assert run.run_id == first


def test_restored_experiments_are_found_under_their_names(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "first")
    run_id = evaluated(root)
    names = [("first", run_id), ("second", run_id), ("third", run_id), ("elsewhere", "0" * 32)]
    assert name_experiments(client(root), names) == 2
    assert name_experiments(client(root), names) == 0
    found = client(root).get_run(run_id)
    assert found.info.run_name == found.data.tags["dvc.exp"] == "first, second, third"
    experiment = client(root).get_experiment_by_name("gender-classifier")
    assert experiment is not None
    rows = client(root).search_runs([experiment.experiment_id], "tags.`dvc.exp` LIKE '%second%'")
    assert [row.info.run_id for row in rows] == [run_id]


def test_a_run_that_was_no_experiment_keeps_its_name_before_theirs(root: Path) -> None:
    run_id = evaluated(root)
    before = client(root).get_run(run_id).info.run_name
    assert before
    assert before.startswith("repro")
    assert name_experiments(client(root), [("other", run_id)]) == 1
    assert name_experiments(client(root), [("other", run_id)]) == 0
    found = client(root).get_run(run_id)
    assert found.info.run_name == f"{before}, other"
    assert found.data.tags["dvc.exp"] == "other"


def test_nothing_of_a_borrowed_address_stays_behind(root: Path) -> None:
    before = dict(os.environ)
    with fluent(client(root)):
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{root / 'mlflow.db'}"
    assert dict(os.environ) == before
