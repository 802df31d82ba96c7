"""A week's work on a fresh clone: a sweep through DVC's queue, read in the terminal and in MLflow's UI."""

from __future__ import annotations

import csv
import os
import re
import time
from pathlib import Path

import pytest
from checkout import SMALL, Checkout, clone

pytestmark = pytest.mark.ui

LRS, BATCH_SIZES = ("0.001", "0.0005", "0.0003"), ("32", "64")


def wait_for_queue(checkout: Checkout, seconds: float) -> list[str]:
    """Return the state of each queued experiment, once all are over."""
    deadline = time.monotonic() + seconds
    while True:
        status = checkout.run("dvc", "queue", "status").stdout
        states = re.findall(r"\b(Queued|Running|Success|Failed)\b", status)
        if states and not {"Queued", "Running"} & set(states):
            return states
        assert time.monotonic() < deadline, status
        time.sleep(2)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone without a store in which six experiments have run, two at a time."""
    checkout = clone(tmp_path_factory.mktemp("swept"), {**SMALL, "epochs": 2})
    sweep = ("-S", f"lr={','.join(LRS)}", "-S", f"batch_size={','.join(BATCH_SIZES)}")
    checkout.run("dvc", "exp", "run", "--queue", *sweep)
    assert checkout.start("env", "-u", "OMP_NUM_THREADS", "dvc", "queue", "start", "-j", "2").wait(60) == 0
    states = wait_for_queue(checkout, 600)
    failed = checkout.run("dvc", "queue", "status").stdout
    assert states == ["Success"] * 6, failed
    return checkout


def shown(checkout: Checkout) -> dict[str, dict[str, str]]:
    """Return the rows of ``dvc exp show`` that are experiments, by name."""
    rows = csv.DictReader(checkout.run("dvc", "exp", "show", "--csv").stdout.splitlines())
    return {row["Experiment"]: row for row in rows if row["Experiment"] and row["rev"] != "workspace"}


def test_every_experiment_is_one_complete_row(swept: Checkout) -> None:
    runs = swept.runs()
    names = set(shown(swept)) - {"main"}
    baseline = swept.run("git", "rev-parse", "HEAD").stdout.strip()
    assert {run.info.run_name for run in runs} == names
    assert len(runs) == len(names) == 6
    assert {(run.data.params["lr"], run.data.params["batch_size"]) for run in runs} == {
        (lr, size) for lr in LRS for size in BATCH_SIZES
    }
    columns = {frozenset(run.data.metrics) for run in runs}, {frozenset(run.data.params) for run in runs}
    assert [len(one) for one in columns] == [1, 1]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert (run.data.tags["dvc.exp"], run.data.tags["dvc.baseline"]) == (run.info.run_name, baseline)
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert [point.step for point in swept.client.get_metric_history(run.info.run_id, key)] == [1, 2]
        assert float(shown(swept)[run.info.run_name]["test.accuracy"]) == pytest.approx(
            run.data.metrics["test/accuracy"], abs=1e-5
        )
        for picture in ("curves.png", "val_confusion.png", "test_confusion.png", "model_card.md"):
            assert Path(swept.client.download_artifacts(run.info.run_id, picture)).stat().st_size > 1000
    assert not [
        path for path in (swept.folder / ".dvc" / "tmp").rglob("*") if path.name in ("mlflow.db", "mlartifacts")
    ]


def test_parallel_jobs_share_the_processors(swept: Checkout) -> None:
    threads = [int(run.data.tags["torch.threads"]) for run in swept.runs()]
    assert threads[:2] == [max(1, (os.cpu_count() or 1) // 2)] * 2
    assert max(threads) <= (os.cpu_count() or 1)


def test_every_model_is_a_version_and_one_is_champion(swept: Checkout) -> None:
    versions = swept.client.search_model_versions("name='gender-classifier'")
    assert {version.tags["dvc.exp"] for version in versions} == {run.info.run_name for run in swept.runs()}
    aliases = swept.client.get_registered_model("gender-classifier").aliases
    assert int(aliases["challenger"]) == 6
    assert all("promotion" in version.tags for version in versions)


def test_a_restored_experiment_gets_its_name_and_no_second_row(swept: Checkout) -> None:
    run = next(
        one for one in swept.runs() if (one.data.params["lr"], one.data.params["batch_size"]) == ("0.0005", "32")
    )
    done = swept.run("dvc", "exp", "run", "-n", "once-more", "-S", "lr=0.0005", "-S", "batch_size=32")
    assert "Running stage 'train'" not in done.stdout
    assert len(swept.runs()) == 6
    assert "1 experiment names added" in swept.run("gender-classifier", "sync").stdout
    assert "0 experiment names added" in swept.run("gender-classifier", "sync").stdout
    found = swept.client.search_runs([run.info.experiment_id], "tags.`dvc.exp` LIKE '%once-more%'")
    assert [one.info.run_id for one in found] == [run.info.run_id]
    assert found[0].info.run_name == f"{run.info.run_name}, once-more"
    assert len(swept.runs()) == 6
