"""MLflow's system metrics: of the whole run, also through an outage and a stop, on a real SQLite store."""

import time
from pathlib import Path

import pytest
from conftest import client
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from gender_classifier.track.delivery import catch_up
from gender_classifier.track.run import track

CPU = "system/cpu_utilization_percentage"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")


def points(root: Path, run_id: str) -> list[Metric]:
    return sorted(client(root).get_metric_history(run_id, CPU), key=lambda point: point.timestamp)


def wait_for(root: Path, run_id: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(points(root, run_id)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_is_watched_from_its_start_to_its_end(root: Path) -> None:
    with track("train", root, params={}) as run:
        wait_for(root, run.run_id, 2)
        before = time.time()
    found = points(root, run.run_id)
    assert found[-1].timestamp >= 1000 * before - 1  # the last one when the run ends
    assert {"system/system_memory_usage_megabytes", "system/disk_usage_megabytes"} <= set(
        client(root).get_run(run.run_id).data.metrics
    )


def test_a_stage_shorter_than_the_interval_has_one_sample(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1000")
    with track("train", root, params={}) as run:
        pass
    assert len(points(root, run.run_id)) == 1


@pytest.mark.parametrize("value", [None, "false"])
def test_without_the_switch_nothing_is_watched(root: Path, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING")
    if value:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", value)
    with track("train", root, params={}) as run:
        time.sleep(0.5)
    assert client(root).get_run(run.run_id).data.metrics == {}


def test_a_run_that_goes_on_continues_its_curves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with track("train", root, params={}) as run:
        wait_for(root, run.run_id, 1)
        time.sleep(1.1)
    first = points(root, run.run_id)
    with track("train", root, params={}, resume=run.run_id):
        wait_for(root, run.run_id, len(first) + 2)
    found = points(root, run.run_id)
    assert found[: len(first)] == first
    # Steps are the seconds since the run was opened first.
    steps = [point.step for point in found]
    assert steps == sorted(steps)
    assert steps[len(first)] >= 1


def test_a_stopped_run_with_nothing_else_is_still_adopted(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), track("train", root, params={}, key="k") as stopped:
        raise KeyboardInterrupt
    assert points(root, stopped.run_id)
    with track("train", root, params={}, key="k") as run:
        pass
    assert run.run_id == stopped.run_id


def test_samples_of_an_outage_are_sent_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, is_out, refused = MlflowClient.log_batch, True, []

    def log_batch(self: MlflowClient, *arguments: object, **options: object) -> object:
        if is_out:
            refused.append(options)
            raise MlflowException("API request failed: Connection refused")
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    with track("train", root, params={}) as run:
        opened = len(points(root, run.run_id))
        monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
        deadline = time.monotonic() + 60
        while not refused:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
    assert len(points(root, run.run_id)) <= opened + 1  # one may have been under way
    is_out = False
    assert catch_up(client(root), root)[0] == 1
    assert len(points(root, run.run_id)) >= opened + 3
    assert client(root).get_run(run.run_id).info.status == "FINISHED"
