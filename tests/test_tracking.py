"""Runs on a real SQLite store: named, tagged, closed as they ended; data and models in their own experiments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gender_classifier.errors import TrackingError
from gender_classifier.tracking import find_tracking_uri, short_digest, track


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tables once: that takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def client(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")


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
    assert client(root).get_run(run.run_id).info.status == status


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


def test_an_unknown_run_is_opened_anew_and_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with track("evaluate", root, params={}, resume="0" * 32) as run:
        pass
    assert run.run_id != "0" * 32
    assert client(root).get_run(run.run_id).data.tags["continues"] == "0" * 32
    assert "run 00000000000000000000000000000000 is not in the MLflow store" in capsys.readouterr().out


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
    code = "import pathlib; from gender_classifier.tracking import track\nwith track('train', pathlib.Path.cwd(), params={}): pass"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, env={**os.environ})
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    found = client(tmp_path).get_experiment_by_name("gender-classifier")
    assert found is not None
    assert len(client(tmp_path).search_runs([found.experiment_id])) == 2
