"""Real servers: MLflow's with and without a password, one that goes away, PostgreSQL, and a model that is served."""

import csv
import json
import multiprocessing
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from checkout import SMALL, Checkout, clone
from mlflow import MlflowClient
from servers import PASSWORD, USER, answers, free_port, kill_session, mlflow_server, postgresql, serving

from gender_classifier.track.run import round_metric, track

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone with its arrays made, in a store of its own."""
    checkout = clone(tmp_path_factory.mktemp("prepared"), {**SMALL, "epochs": 2})
    checkout.run("dvc", "repro", "preprocess")
    return checkout


@pytest.mark.parametrize("auth", [False, True], ids=["open", "with a password"])
def test_the_pipeline_on_a_server(
    prepared: Checkout, tmp_path: Path, auth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything goes through the server, artifacts too; nothing lands beside it."""
    port = free_port()
    settings = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    if auth:
        settings |= {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    (prepared.folder / "mlflow.db").unlink(missing_ok=True)
    with mlflow_server(tmp_path / "server", port, auth=auth):
        if auth:
            wrong = settings | {"MLFLOW_TRACKING_PASSWORD": "wrong"}
            began = time.monotonic()
            refused = prepared.run("dvc", "repro", "train", "--force", "--single-item", check=False, **wrong)
            assert time.monotonic() - began < 60
            (line,) = [one for one in refused.stderr.splitlines() if one.startswith("train: error: ")]
            assert "401" in line
            assert "Traceback" not in refused.stderr
        name = "on-a-server-with-a-password" if auth else "on-a-server"
        prepared.run("dvc", "exp", "run", "--force", "-n", name, "-S", f"seed={int(auth)}", **settings)
        for key, value in settings.items():
            monkeypatch.setenv(key, value)
        client = MlflowClient()
        experiment = client.get_experiment_by_name("gender-classifier")
        assert experiment is not None
        assert experiment.artifact_location.startswith("mlflow-artifacts:/")
        (run,) = client.search_runs([experiment.experiment_id])
        assert (run.info.status, run.info.run_name) == ("FINISHED", name)
        assert [point.step for point in client.get_metric_history(run.info.run_id, "val/accuracy")] == [1, 2]
        report = json.loads((prepared.folder / "metrics" / "evaluate.json").read_text())
        assert run.data.metrics["test/accuracy"] == report["test"]["accuracy"]
        for picture in ("curves.png", "test_confusion.png"):
            local = Path(client.download_artifacts(run.info.run_id, picture, str(tmp_path)))
            assert local.read_bytes() == next(prepared.folder.glob(f"metrics/figures/*/{picture}")).read_bytes()
        model = mlflow.pyfunc.load_model("models:/gender-classifier@challenger")
        images = np.load(prepared.folder / "data" / "processed" / "test_images.npy")
        np.testing.assert_allclose(model.predict(images)["probs"], predicted(prepared), atol=1e-4)
    assert not (prepared.folder / "mlflow.db").exists()
    assert not (prepared.folder / ".mlflow-unsent").exists() or not list(prepared.folder.glob(".mlflow-unsent/*/*"))


def predicted(checkout: Checkout) -> list[list[float]]:
    with (checkout.folder / "data" / "predictions" / "test.csv").open() as file:
        return [[float(row["prob_female"]), float(row["prob_male"])] for row in csv.DictReader(file)]


def test_a_server_that_goes_away_and_comes_back(prepared: Checkout, tmp_path: Path) -> None:
    """Training ends, files are whole, and what the server missed is sent once it is back, nothing twice."""
    epochs, port = 8, free_port()
    uri = f"http://127.0.0.1:{port}"
    folder = tmp_path / "server"
    curves = prepared.folder / "metrics" / "curves.csv"
    curves.unlink(missing_ok=True)
    with mlflow_server(folder, port) as server:
        command = ("dvc", "exp", "run", "-n", "outage", "-S", f"epochs={epochs}", "-S", "seed=7")
        training = prepared.start(*command, MLFLOW_TRACKING_URI=uri)
        deadline = time.monotonic() + 120
        while not (curves.exists() and len(curves.read_text().splitlines()) > 3):  # more than what DVC restores
            assert training.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kill_session(server)
        # train ends without the store; evaluate, a new stage, is told at its start.
        assert training.wait(300) != 0
    log = (prepared.folder / "started.log").read_text()
    assert "MLflow does not answer" in log
    assert "train: best of 8 epochs" in log
    assert "evaluate: error: " in log
    assert "Traceback" not in log
    assert (prepared.folder / "models" / "model.safetensors").is_file()
    with curves.open() as file:
        expected = [round_metric(float(row["val_loss"])) for row in csv.DictReader(file)]
    assert len(expected) == epochs
    with mlflow_server(folder, port):
        assert "1 runs completed" in prepared.run("gender-classifier", "sync", MLFLOW_TRACKING_URI=uri).stdout
        assert "0 runs completed" in prepared.run("gender-classifier", "sync", MLFLOW_TRACKING_URI=uri).stdout
        client = MlflowClient(uri)
        run_id = json.loads((prepared.folder / "models" / "mlflow_run.json").read_text())["run_id"]
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run_id, "val/loss")
        assert [(point.step, point.value) for point in history] == list(enumerate(expected, 1))
        assert {"curves.png", "val_confusion.png"} <= {item.path for item in client.list_artifacts(run_id)}
        experiment = client.get_experiment_by_name("gender-classifier")
        assert experiment is not None
        assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_server_that_is_not_there_stops_the_stage_at_once(prepared: Checkout) -> None:
    began = time.monotonic()
    done = prepared.run(
        "dvc", "repro", "train", "--force", "--single-item", check=False,
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
    )  # fmt: skip
    assert done.returncode != 0
    assert time.monotonic() - began < 40
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("train: error: ")]
    assert "MLFLOW_TRACKING_URI" in line
    assert "img/s" not in done.stderr


def write_runs(root: str, uri: str, number: int) -> None:
    """Write one model run of 40 epochs and one data run, as a stage does. Runs in a process of its own."""
    import os  # noqa: PLC0415

    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ["DVC_EXP_NAME"] = f"writer-{number}"
    folder = Path(root)
    with track("verify", folder, params={"source": number}, data=True) as run:
        run.log_metrics({"num_ok": number})
    with track("train", folder, params={"lr": number, **{f"p{one}": one for one in range(150)}}) as run:
        for epoch in range(1, 41):
            run.log_metrics({"train/loss": number + 1 / epoch, "val/loss": number + 2 / epoch}, step=epoch)
        run.log_artifact(folder / "params.yaml", "metrics")
        run.set_tags({"number": number})


def start_writers(roots: list[Path], uri: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([write_runs.__module__])  # MLflow's import, once for all
    writers = [context.Process(target=write_runs, args=(str(root), uri, number)) for number, root in enumerate(roots)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(180)
    assert [writer.exitcode for writer in writers] == [0] * len(writers)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    with postgresql(tmp_path / "postgresql") as uri:
        yield uri


@pytest.mark.parametrize("checkouts", [1, 6], ids=["of one checkout", "of six checkouts"])
def test_six_writers_at_once_lose_nothing_on_postgresql(database: str, tmp_path: Path, checkouts: int) -> None:
    """On an empty database: all six come upon no tables and no experiment."""
    roots = [tmp_path / str(number % checkouts) for number in range(6)]
    for root in roots:
        root.mkdir(exist_ok=True)
        (root / "params.yaml").write_text("epochs: 40\n")
    start_writers(roots, database)
    client = MlflowClient(database)
    for name in ("gender-classifier", "gender-classifier-data"):
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        prefix = "verify " if name.endswith("-data") else ""
        assert set(runs) == {f"{prefix}writer-{number}" for number in range(6)}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        if prefix:
            continue
        for number in range(6):
            run = runs[f"writer-{number}"]
            assert run.data.tags["number"] == run.data.params["lr"] == str(number)
            assert len(run.data.params) == 151
            for key, factor in (("train/loss", 1), ("val/loss", 2)):
                points = client.get_metric_history(run.info.run_id, key)
                expected = [(epoch, round_metric(number + factor / epoch)) for epoch in range(1, 41)]
                assert [(point.step, point.value) for point in points] == expected
            local = client.download_artifacts(run.info.run_id, "metrics/params.yaml", str(tmp_path))
            assert Path(local).read_text() == "epochs: 40\n"


def test_a_server_in_front_of_postgresql_takes_six_writers(database: str, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "params.yaml").write_text("epochs: 40\n")
    with mlflow_server(tmp_path / "server", port, backend=database):
        uri = f"http://127.0.0.1:{port}"
        start_writers([tmp_path] * 6, uri)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("gender-classifier")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert sorted(run.info.run_name or "" for run in runs) == [f"writer-{number}" for number in range(6)]
        counts = [len(client.get_metric_history(run.info.run_id, "val/loss")) for run in runs]
        assert counts == [40] * 6


def test_a_served_champion_answers_as_the_pipeline_did(prepared: Checkout, tmp_path: Path) -> None:
    """``mlflow models serve``, the documented command."""
    prepared.run("dvc", "exp", "run", "-n", "to-serve", "-S", "seed=11", "-S", "evaluate.promotion.min_accuracy=0")
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{prepared.folder / 'mlflow.db'}"}
    assert "champion" in prepared.client.get_registered_model("gender-classifier").aliases
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", "models:/gender-classifier@champion",
        "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    images = np.load(prepared.folder / "data" / "processed" / "test_images.npy")[:16]
    with serving(command, tmp_path, lambda: answers(f"http://127.0.0.1:{port}/ping"), **store):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"inputs": images.tolist()}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: dict[str, Any] = json.load(answer)
    np.testing.assert_allclose(body["predictions"]["probs"], predicted(prepared)[:16], atol=1e-4)
