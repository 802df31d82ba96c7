"""A fresh clone, real DVC, a real SQLite store: what users run, read back through MLflow's client.

The clone is one folder of a larger repository, under a name that no address holds as it is; only the one that must give
equal bytes is a repository of its own.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from urllib.request import url2pathname

import mlflow.pyfunc
import numpy as np
import pytest
import yaml
from checkout import SMALL, Checkout, clone
from closure import ROOT
from scipy.special import softmax

from gender_classifier.model import compute_logits, load_model
from gender_classifier.params import load_params

FACES = ROOT.parent / "shared" / "data" / "faces-12k.zip"


@pytest.fixture(scope="module")
def repro(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone in which `dvc repro` has run once and its results are committed."""
    checkout = clone(tmp_path_factory.mktemp("repro"), SMALL, inside="teams/100% faces?")
    done = checkout.run("dvc", "repro")
    assert "train: best of 1 epochs is 1" in done.stdout
    assert "img/s" not in done.stderr  # no progress bar without a terminal
    checkout.run("git", "add", "-A")
    checkout.run("git", "commit", "-q", "-m", "results")
    return checkout


@pytest.fixture(scope="module")
def experiments(repro: Checkout) -> Checkout:
    """The same clone after two experiments: one in the workspace, one in a folder that vanishes."""
    repro.run("dvc", "exp", "run", "-n", "two-epochs", "-S", "epochs=2", "-S", "lr=1e-4")
    repro.run("git", "stash", "-q")
    repro.run("dvc", "checkout", "-q")
    repro.run("dvc", "exp", "run", "--temp", "-n", "from-temp", "-S", "epochs=2", "-S", "seed=5")
    return repro


def test_a_second_repro_does_nothing_but_say_so(repro: Checkout) -> None:
    before = len(repro.runs())
    assert "Data and pipelines are up to date." in repro.run("dvc", "repro").stdout
    assert len(repro.runs()) == before
    assert repro.run("git", "status", "--porcelain").stdout == ""


def test_every_stage_left_a_finished_run(repro: Checkout) -> None:
    data = repro.runs("gender-classifier-data")[:3]
    assert [run.data.tags["dvc.stage"] for run in data] == ["ingest", "verify", "preprocess"]
    model = repro.runs()[0]
    assert {run.info.status for run in [*data, model]} == {"FINISHED"}
    assert data[1].data.tags["data.digest"] == data[2].data.tags["data.digest"] == model.data.tags["data.digest"]
    assert data[1].data.metrics["num_ok"] == repro.read("metrics/verify.json")["num_ok"]
    assert {"class_balance.png", "image_sizes.png", "samples.png", "rejects.png"} <= repro.artifacts(data[1])


def test_the_model_run_mirrors_the_files(repro: Checkout) -> None:
    run = repro.runs()[0]
    assert run.info.run_id == repro.read("models/mlflow_run.json")["run_id"]
    assert run.info.run_name.startswith("repro-")
    trained, evaluated = repro.read("metrics/train.json"), repro.read("metrics/evaluate.json")["test"]
    assert {key: run.data.metrics[key] for key in trained} == trained
    assert {key: run.data.metrics[f"test/{key}"] for key in evaluated} == evaluated
    assert 0 <= evaluated["accuracy_low"] <= evaluated["accuracy"] <= evaluated["accuracy_high"] <= 1
    assert run.data.params["ingest.sample_train"] == "160"
    assert run.data.params["lr"] == str(load_params(repro.folder / "params.yaml").train.lr)
    assert "say nothing about faces" in run.data.tags["mlflow.note.content"]
    assert repro.artifacts(run) >= {
        "curves.png", "val_confusion.png", "test_confusion.png", "roc.png", "reliability.png", "worst_mistakes.png"}  # fmt: skip
    inputs = run.inputs.dataset_inputs
    assert {tag.value for entry in inputs for tag in entry.tags} == {"training", "evaluation"}
    assert {entry.dataset.digest for entry in inputs} == {run.data.tags["data.digest"]}


def test_splits_are_disjoint_by_content(repro: Checkout) -> None:
    hashes, pixels = {}, {}
    for split in ("train", "val", "test"):
        with (repro.folder / f"data/processed/{split}_index.csv").open() as file:
            hashes[split] = {row["sha256"] for row in csv.DictReader(file)}
        images = np.load(repro.folder / f"data/processed/{split}_images.npy")
        pixels[split] = {image.tobytes() for image in images}
        assert len(images) == len(np.load(repro.folder / f"data/processed/{split}_labels.npy")) == len(hashes[split])
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not hashes[one] & hashes[other]
        assert not pixels[one] & pixels[other]


def test_confusion_matrices_and_predictions_agree(repro: Checkout) -> None:
    counts = repro.read("metrics/test_confusion.json")
    with (repro.folder / "data/predictions/test.csv").open() as file:
        rows = list(csv.DictReader(file))
    for actual, line in counts.items():
        for predicted, count in line.items():
            assert count == sum((row["actual"], row["predicted"]) == (actual, predicted) for row in rows)
    right = sum(row["actual"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(repro.read("metrics/evaluate.json")["test"]["accuracy"])


def test_the_cost_and_the_use_of_the_second_look_are_reported(repro: Checkout) -> None:
    model, spec = load_model(repro.folder / "models/model.safetensors")
    assert spec.tta_margin == load_params(repro.folder / "params.yaml").train.tta_margin > 0
    images, labels = (np.load(repro.folder / f"data/processed/test_{what}.npy") for what in ("images", "labels"))
    once = compute_logits(model, replace(spec, tta_margin=0.0), images)
    doubtful = np.abs(once[:, 0] - once[:, 1]) < spec.tta_margin
    found, run = repro.read("metrics/test_report.json"), repro.runs()[0]
    assert found["tta_share"] == run.data.metrics["test/tta_share"] == doubtful.mean()
    assert found["accuracy_without_tta"] == (once.argmax(axis=1) == labels).mean()


def test_corruptions_thresholds_and_suspects_are_tabulated(repro: Checkout) -> None:
    def read(path: str) -> list[dict[str, str]]:
        with (repro.folder / path).open() as file:
            return list(csv.DictReader(file))

    corrupted = read("metrics/robustness.csv")
    assert len(corrupted) == 31
    headlines = repro.read("metrics/evaluate.json")["test"]
    # 40 images, fewer than are asked for: the clean row is the whole test set's accuracy.
    assert float(corrupted[0]["accuracy"]) == pytest.approx(headlines["accuracy"])
    assert headlines["robust_accuracy"] == pytest.approx(np.mean([float(row["accuracy"]) for row in corrupted[1:]]))
    thresholds = read("metrics/thresholds.csv")
    assert len(thresholds) == 99
    suspects = read("data/predictions/label_issues.csv")
    assert {row["split"] for row in suspects} <= {"val", "test"}
    assert [float(row["prob_label"]) for row in suspects] == sorted(float(row["prob_label"]) for row in suspects)
    run = repro.runs()[0]
    assert {"robustness.png", "label_issues.png"} <= repro.artifacts(run)
    assert run.data.metrics["test/robust_accuracy"] == headlines["robust_accuracy"]
    assert run.data.metrics["temperature"] == load_model(repro.folder / "models/model.safetensors")[1].temperature


def test_the_registered_version_predicts_what_the_pipeline_did(
    repro: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = repro.client.get_model_version("gender-classifier", "1")
    run = repro.runs()[0]
    assert version.run_id == run.info.run_id
    assert version.tags["data.digest"] == run.data.tags["data.digest"]
    assert float(version.tags["test/accuracy"]) == pytest.approx(run.data.metrics["test/accuracy"])
    logged = repro.client.get_logged_model(version.source.removeprefix("models:/"))
    assert {metric.key: metric.value for metric in logged.metrics}["test/loss"] == run.data.metrics["test/loss"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", repro.store)
    model = mlflow.pyfunc.load_model("models:/gender-classifier/1")
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 64, 64, 3)
    images = np.load(repro.folder / "data/processed/test_images.npy")
    with (repro.folder / "data/predictions/test.csv").open() as file:
        expected = [[float(row["prob_female"]), float(row["prob_male"])] for row in csv.DictReader(file)]
    np.testing.assert_allclose(model.predict(images)["probs"], expected, atol=1e-4)


def test_no_pickle_among_models_and_artifacts(repro: Checkout) -> None:
    for path in (repro.folder / "models", repro.folder / "mlartifacts"):
        assert not [file for file in path.rglob("*") if file.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")]


def test_another_clone_pulls_and_has_nothing_to_do(repro: Checkout, tmp_path: Path) -> None:
    """Push to a DVC remote, pull in a clone elsewhere: `dvc repro` does nothing there, the model predicts the same."""
    repro.run("dvc", "remote", "add", "--default", "team", str(tmp_path / "remote"))
    repro.run("dvc", "push")
    repro.run("git", "clone", "-q", str(repro.repository), str(tmp_path / "other"))
    other = Checkout(tmp_path / "other" / repro.folder.relative_to(repro.repository))
    # The remote is not committed here: each clone says where its own is.
    other.run("dvc", "remote", "add", "--default", "team", str(tmp_path / "remote"))
    other.run("dvc", "pull")
    assert "Data and pipelines are up to date." in other.run("dvc", "repro").stdout
    assert not (other.folder / "mlflow.db").exists()
    images = np.load(other.folder / "data/processed/test_images.npy")
    model, spec = load_model(other.folder / "models/model.safetensors")
    probs = softmax(compute_logits(model, spec, images) / spec.temperature, axis=1)
    with (repro.folder / "data/predictions/test.csv").open() as file:
        expected = [[float(row["prob_female"]), float(row["prob_male"])] for row in csv.DictReader(file)]
    np.testing.assert_allclose(probs, expected, atol=1e-5)
    repro.run("git", "checkout", "-q", str(repro.repository))


def test_experiments_are_rows_that_compare(experiments: Checkout) -> None:
    rows = {run.info.run_name: run for run in experiments.runs()}
    assert {"two-epochs", "from-temp"} <= set(rows)
    baseline = experiments.run("git", "rev-parse", "HEAD").stdout.strip()
    for name in ("two-epochs", "from-temp"):
        run = rows[name]
        assert run.info.status == "FINISHED"
        assert (run.data.tags["dvc.exp"], run.data.tags["dvc.baseline"]) == (name, baseline)
        assert run.data.params["epochs"] == "2"
        for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            history = experiments.client.get_metric_history(run.info.run_id, key)
            assert [point.step for point in history] == [1, 2]
        assert "test/accuracy" in run.data.metrics
        for picture in ("test_confusion.png", "curves.png"):
            local = experiments.client.download_artifacts(run.info.run_id, picture)
            assert Path(local).read_bytes().startswith(b"\x89PNG")
    assert float(rows["two-epochs"].data.params["lr"]) == 1e-4


def test_artifacts_of_a_temp_run_lie_in_the_main_checkout(experiments: Checkout) -> None:
    run = next(run for run in experiments.runs() if run.info.run_name == "from-temp")
    assert (
        run.info.artifact_uri
        == (experiments.folder / "mlartifacts/gender-classifier" / run.info.run_id / "artifacts").as_uri()
    )
    found = {path.parent for name in ("mlflow.db", "mlartifacts") for path in experiments.repository.rglob(name)}
    assert found == {experiments.folder}


def test_going_back_restores_from_the_run_cache_without_training(experiments: Checkout) -> None:
    before = len(experiments.runs())
    done = experiments.run("dvc", "repro")
    assert "stages/train.py" not in done.stdout.replace("Stage 'train' is cached", "")
    assert len(experiments.runs()) == before


def test_dvcs_own_commands_read_well(experiments: Checkout) -> None:
    assert "accuracy" in experiments.run("dvc", "metrics", "diff", "HEAD", "two-epochs").stdout
    assert re.search(r"epochs\s+1\s+2", experiments.run("dvc", "params", "diff", "HEAD", "two-epochs").stdout)
    page = experiments.run("dvc", "plots", "diff", "HEAD", "two-epochs", "--out", "plots_page").stdout.strip()
    html = Path(url2pathname(page.removeprefix("file://"))).read_text()
    for title in ("Loss, train", "Accuracy, train", "true positive rate", "predicted"):
        assert title in html
    (experiments.folder / "plots_page").exists()


def test_shown_experiments_have_the_metrics(experiments: Checkout) -> None:
    shown = experiments.run("dvc", "exp", "show", "--csv").stdout
    header = next(csv.reader(shown.splitlines()))
    assert {"test.accuracy", "best_val_accuracy", "epochs", "lr"} <= set(header)


def test_equal_runs_give_equal_bytes(repro: Checkout, tmp_path: Path) -> None:
    again = clone(tmp_path / "again", SMALL)
    again.run("dvc", "repro")
    lock = yaml.safe_load((again.folder / "dvc.lock").read_text())["stages"]
    first = yaml.safe_load(repro.run("git", "show", "HEAD:./dvc.lock").stdout)["stages"]
    hashes = [
        {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]} for stages in (first, lock)
    ]
    changed = {path for path in hashes[0] if hashes[0][path] != hashes[1][path]}
    assert changed == {"models/mlflow_run.json"}


@pytest.mark.parametrize(
    ("settings", "stage", "message"),
    [
        (["epochs=0"], "train", "`epochs` is int 0, out of range; it must be at least 1"),
        (["source=nowhere.zip"], "ingest", "no such folder or file; choose sample, kaggle, or a path"),
        (["source=README.md"], "ingest", "not a whole zip file"),
        (["verify.max_rejected=0"], "verify", "images rejected"),
        (["train.device=cuda:7"], "train", "`train.device` is 'cuda:7', which this machine cannot use"),
    ],
)
def test_bad_input_is_one_line_and_loses_nothing(
    experiments: Checkout, settings: list[str], stage: str, message: str
) -> None:
    checkout = experiments
    done = checkout.run("dvc", "exp", "run", *(part for one in settings for part in ("-S", one)), check=False)
    checkout.run("git", "checkout", "-q", ".")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{stage}: error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    checkout.run("dvc", "checkout", "-q")  # what the stage would have replaced is still in the cache
    assert "up to date" in checkout.run("dvc", "repro").stdout


@pytest.mark.skipif(not FACES.is_file(), reason=f"{FACES.name} with real faces is not beside the checkout")
def test_real_faces(tmp_path: Path) -> None:
    """One epoch on 10,000 real pictures learns: chance is 0.5, one epoch gives about 0.9."""
    checkout = clone(tmp_path / "faces", {"epochs": 1, "source": str(FACES)})
    checkout.run("dvc", "repro", OMP_NUM_THREADS="2")
    assert checkout.read("data/raw.json")["num_images"] == 12_000
    assert checkout.read("metrics/evaluate.json")["test"]["accuracy"] > 0.8
    assert checkout.runs()[0].data.metrics["test/accuracy"] > 0.8
