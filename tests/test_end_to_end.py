"""A fresh clone, real DVC, a real SQLite store: what users run, read back through MLflow's client.

The clone is one folder of a larger repository, under a name that no address holds as it is; only the one that must give
equal bytes is a repository of its own.
"""

import csv
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from checkout import Checkout

from gender_classifier.metrics.corruptions import ROBUST, choose_images
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import load_model
from gender_classifier.pipeline.params import load_params
from gender_classifier.track import runs_view


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
    trained = trained["val"]
    assert {key: run.data.metrics[f"val/{key}"] for key in trained} == pytest.approx(trained, rel=1e-5)
    assert {key: run.data.metrics[f"test/{key}"] for key in evaluated} == pytest.approx(evaluated, rel=1e-5)
    assert 0 <= evaluated["accuracy_low"] <= evaluated["accuracy"] <= evaluated["accuracy_high"] <= 1
    assert run.data.params["ingest.sample_train"] == "160"
    assert (run.data.params["train.network"], run.data.tags["model.network"]) == ("alexnet", "AlexNet")
    assert run.data.params["lr"] == str(load_params(repro.folder / "params.yaml").train.lr)
    assert "say nothing about faces" in run.data.tags["mlflow.note.content"]
    assert repro.artifacts(run) >= {
        "curves.png", "val_confusion.png", "test_confusion.png", "roc.png", "reliability.png", "worst_mistakes.png"}  # fmt: skip
    inputs = run.inputs.dataset_inputs
    assert {tag.value for entry in inputs for tag in entry.tags} == {"training", "evaluation"}
    assert {entry.dataset.digest for entry in inputs} == {run.data.tags["data.digest"]}


def test_metrics_have_one_scheme_and_the_shared_view_finds_its_columns(repro: Checkout) -> None:
    run = repro.runs()[0]
    metrics = run.data.metrics
    assert len(metrics) <= 40
    assert not [key for key in metrics if not key.startswith(("train/", "val/", "test/"))]
    assert not [key for key, value in metrics.items() if float(f"{value:.6g}") != value]
    assert set(runs_view.METRICS) | set(runs_view.CURVES) <= set(metrics)
    assert set(runs_view.PARAMS) <= set(run.data.params)
    assert {"test/recall_female", "test/recall_male", "test/roc_auc", "test/ece", "test/accuracy_low"} <= set(metrics)


def test_the_card_in_mlflow_adds_time_and_hardware_to_the_file(repro: Checkout) -> None:
    run = repro.runs()[0]
    kept = (repro.folder / "models/model_card.md").read_text()
    shown = Path(repro.client.download_artifacts(run.info.run_id, "model_card.md")).read_text()
    assert shown.startswith(kept)
    assert shown.removeprefix(kept).split("\n")[1] == "## Training time and hardware"
    assert run.data.tags["train.time"] in shown
    assert "time and hardware" not in kept
    assert repro.client.get_model_version("gender-classifier", "1").description == shown


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
    found = repro.read("metrics/test_report.json")
    assert found["tta_share"] == doubtful.mean()
    assert found["accuracy_without_tta"] == (once.argmax(axis=1) == labels).mean()


def test_corruptions_thresholds_and_suspects_are_tabulated(repro: Checkout) -> None:
    def read(path: str) -> list[dict[str, str]]:
        with (repro.folder / path).open() as file:
            return list(csv.DictReader(file))

    corrupted = read("metrics/robustness.csv")
    assert len(corrupted) == 41
    headlines = repro.read("metrics/evaluate.json")["test"]
    predicted = read("data/predictions/test.csv")
    labels = np.load(repro.folder / "data/processed/test_labels.npy")
    chosen = [predicted[row] for row in choose_images(labels, 8)]  # of 40: SMALL's
    assert float(corrupted[0]["accuracy"]) == np.mean([row["predicted"] == row["actual"] for row in chosen])
    ten = [float(row["accuracy"]) for row in corrupted if row["corruption"] in ROBUST]
    assert headlines["robust_accuracy"] == pytest.approx(np.mean(ten))
    covered = [float(row["accuracy"]) for row in corrupted if row["group"] == "occlusion"]
    assert headlines["occlusion_accuracy"] == pytest.approx(np.mean(covered))
    thresholds = read("metrics/thresholds.csv")
    assert len(thresholds) == 99
    suspects = read("data/predictions/label_issues.csv")
    assert {row["split"] for row in suspects} <= {"val", "test"}
    assert [float(row["prob_label"]) for row in suspects] == sorted(float(row["prob_label"]) for row in suspects)
    run = repro.runs()[0]
    assert {"robustness.png", "label_issues.png"} <= repro.artifacts(run)
    temperature = load_model(repro.folder / "models/model.safetensors")[1].temperature
    assert run.data.metrics["val/temperature"] == pytest.approx(temperature, rel=1e-5)


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
