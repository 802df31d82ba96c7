"""Every stage in a temporary folder, without DVC: what it writes, what it mirrors, how it fails."""

import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from checkout import ROOT
from conftest import stand_in
from mlflow import MlflowClient

from gender_classifier.common.paths import Layout
from gender_classifier.data.archive import Archive
from gender_classifier.data.corrections import Correction, write_corrections
from gender_classifier.data.dataset import read_index, read_info
from gender_classifier.data.images import to_array
from gender_classifier.data.manifest import read_manifest
from gender_classifier.data.names import SPLITS
from gender_classifier.errors import DataError, ModelError, SourceError
from gender_classifier.evaluate.extra import groups
from gender_classifier.metrics.histograms import UNITS, measure_pixels, parse_reference
from gender_classifier.model.inference import IMAGENET_MEAN, IMAGENET_STD
from gender_classifier.model.model_file import load_model, pack_model
from gender_classifier.model.unfamiliarity import compute_unfamiliarity, load_unfamiliarity
from gender_classifier.pipeline.params import Params, load_params
from gender_classifier.predict.predictor import Predictor
from gender_classifier.train.report import warn_of_chance
from gender_classifier.version import __version__

STAGES = ("ingest", "verify", "preprocess", "train", "evaluate")


def load_main(stage: str) -> Callable[[Layout, Params], None]:
    spec = importlib.util.spec_from_file_location(f"stage_{stage}", ROOT / "stages" / f"{stage}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main  # type: ignore[no-any-return]


def run(stage: str, folder: Path) -> None:
    layout = Layout(folder)
    load_main(stage)(layout, load_params(layout.params_path))


def shrink(folder: Path, **top: object) -> None:
    """Write the real params, made small."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= {"epochs": 2, "batch_size": 32, **top}
    params["ingest"] |= {"sample_train": 100, "sample_val": 30}
    params["preprocess"]["val_fraction"] = 0.2
    params["evaluate"]["robustness_images"] = 8
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "data").mkdir(exist_ok=True)
    shutil.copy(ROOT / "data" / "corrections.csv", folder / "data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all five stages have run."""
    folder = tmp_path_factory.mktemp("whole")
    shrink(folder)
    for stage in STAGES:
        run(stage, folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """Return the same folder to break, with a store of its own."""
    shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns("mlartifacts"))
    return tmp_path / "copy"


def test_all_outputs_are_there_and_nothing_else(whole: Path) -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    declared = {
        next(iter(entry)) if isinstance(entry, dict) else entry
        for stage in pipeline.values()
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind, [])
    }
    files = {
        str(path.parent.relative_to(whole) if {"figures", "sheets"} & {*path.parts} else path.relative_to(whole))
        for folder in ("data", "models", "metrics")
        for path in (whole / folder).rglob("*")
        if path.is_file()
    }
    assert files - {"data/corrections.csv"} == declared


def test_metrics_in_git_are_small(whole: Path) -> None:
    assert sum(path.stat().st_size for path in (whole / "metrics").glob("*.*")) < 100_000


def test_arrays_follow_the_index_back_to_the_source(whole: Path) -> None:
    with (whole / "data/processed/images.csv").open() as table:
        images_table = {row["path"]: row for row in csv.DictReader(table)}
    assert len(images_table) == json.loads((whole / "metrics/verify.json").read_text())["num_ok"]
    with Archive(whole / "data/raw.zip") as archive:
        for split in ("train", "val", "test"):
            images = np.load(whole / f"data/processed/{split}_images.npy")
            labels = np.load(whole / f"data/processed/{split}_labels.npy")
            with (whole / f"data/processed/{split}_index.csv").open() as file:
                for row in csv.DictReader(file):
                    number = int(row["row"])
                    assert row["member"].split("/")[1] == row["label"] == ("female", "male")[labels[number]]
                    assert row["member"].startswith("Validation" if split == "test" else "Training")
                    listed = images_table[row["member"]]
                    assert (listed["split"], listed["label"], listed["sha256"]) == (split, row["label"], row["sha256"])
                    expected = to_array(archive.read(row["member"]), 64, max_pixels=10**6)
                    np.testing.assert_array_equal(images[number], expected)


def test_channel_statistics_are_those_of_train_alone(whole: Path) -> None:
    info = json.loads((whole / "data/processed/dataset.json").read_text())
    pixels = np.load(whole / "data/processed/train_images.npy").reshape(-1, 3) / 255
    np.testing.assert_allclose(info["channel_mean"], pixels.mean(axis=0))
    np.testing.assert_allclose(info["channel_std"], pixels.std(axis=0))


def test_the_model_holds_what_rebuilds_it(whole: Path) -> None:
    _, spec = load_model(whole / "models/model.safetensors")
    info = json.loads((whole / "data/processed/dataset.json").read_text())
    assert list(spec.classes) == info["classes"] == ["female", "male"]
    assert list(spec.channel_mean) == info["channel_mean"]


def test_imagenet_weights_bring_their_own_normalisation(copy: Path, hub: Path) -> None:
    state = stand_in(hub)
    shrink(copy, epochs=1)
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["train"] |= {"weights": "imagenet", "trunk_lr": 0.0, "ema_epochs": 0.0}
    params["weight_decay"] = 0.0
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    run("train", copy)
    model, spec = load_model(copy / "models/model.safetensors")
    assert (spec.channel_mean, spec.channel_std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert torch.equal(model.state_dict()["features.0.weight"], state["features.0.weight"])
    run("evaluate", copy)  # what is exported agrees with the model


def test_the_curves_have_a_row_an_epoch(whole: Path) -> None:
    with (whole / "metrics/curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    kept = json.loads((whole / "metrics/train.json").read_text())["val"]
    assert float(rows[kept["kept_epoch"] - 1]["val_accuracy"]) == kept["kept_accuracy"]


def test_a_training_too_short_to_tell_the_classes_apart_says_so(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shrink(copy, epochs=1, lr=1e-9)
    run("train", copy)
    out = capsys.readouterr().out
    assert "train: best of 1 epochs is 1 by validation loss, with validation accuracy 0." in out
    assert re.search(
        r"every validation image is called (fe)?male: the recipe needs more steps than these 3; raise epochs", out
    )


def test_a_model_that_guesses_is_told_from_one_that_has_learned() -> None:
    assert warn_of_chance(np.array([[20, 10], [9, 21]]), ("female", "male"), 3) == ""
    assert warn_of_chance(np.array([[9, 11], [11, 9]]), ("female", "male"), 3) == (
        "\ntrain: balanced accuracy 0.4500 (0.3144 to 0.5970) on val cannot be told from that of always answering female "
        "(0.5000): train longer than 3 steps (raise epochs or lower batch_size) or add images; until then, do not trust "
        "the suspected wrong labels"
    )


def test_folds_bring_the_suspects_of_train_and_change_no_weight(whole: Path, copy: Path) -> None:
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["train"]["label_folds"] = 2
    params["evaluate"]["robustness_images"] = 0
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    run("train", copy)
    assert (copy / "models/model.safetensors").read_bytes() == (whole / "models/model.safetensors").read_bytes()
    with (copy / "data/processed/train_index.csv").open() as file:
        members = [row["member"] for row in csv.DictReader(file)]
    with (copy / "data/predictions/train_folds.csv").open() as file:
        rows = list(csv.DictReader(file))
    header = (copy / "data/predictions/val.csv").read_text().splitlines()[0]
    assert ",".join(rows[0]) == f"{header},fold"
    assert [row["member"] for row in rows] == members
    assert {row["fold"] for row in rows} == {"1", "2"}
    assert len(list((copy / ".checkpoints").glob("*.safetensors"))) == 3
    run("evaluate", copy)
    assert not list((copy / ".checkpoints").glob("*.safetensors"))
    with (copy / "data/predictions/label_issues.csv").open() as file:
        suspects = list(csv.DictReader(file))
    own = {row["member"]: row[f"prob_{row['actual']}"] for row in rows}
    found = {row["member"]: row["prob_label"] for row in suspects if row["split"] == "train"}
    assert found
    assert found == {member: own[member] for member in found}
    assert [row["prob_label"] for row in suspects] == sorted(row["prob_label"] for row in suspects)


def test_without_folds_their_table_is_empty(whole: Path) -> None:
    assert (whole / "data/predictions/train_folds.csv").read_text().splitlines() == [
        "member,actual,predicted,correct,prob_female,prob_male,fold"
    ]
    with (whole / "data/predictions/label_issues.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} <= {"val", "test"}


def test_unfamiliar_images_of_every_split_are_listed(copy: Path) -> None:
    layout = Layout(copy)
    model, spec = load_model(layout.model_path)
    unfamiliarity = load_unfamiliarity(layout.model_path, model, spec)
    assert unfamiliarity is not None
    seen = compute_unfamiliarity(model, spec, unfamiliarity, np.load(layout.images_path("train")))
    unfamiliarity.threshold.fill_(float(np.quantile(seen, 0.9)))  # so few are fitted closely, and none is beyond it
    layout.model_path.write_bytes(pack_model(model.state_dict(), spec, unfamiliarity.state_dict()))
    run("evaluate", copy)
    limit = float(unfamiliarity.threshold)
    expected = {}
    for split in SPLITS:
        scores = compute_unfamiliarity(model, spec, unfamiliarity, np.load(layout.images_path(split)))
        members, labels = read_index(layout.index_path(split)), np.load(layout.labels_path(split))
        for row in np.flatnonzero(scores > limit):
            expected[split, members[row]] = (spec.classes[labels[row]], pytest.approx(scores[row] / limit, abs=1e-3))
    with layout.strangers_path.open() as file:
        rows = list(csv.DictReader(file))
    found = {(row["split"], row["member"]): (row["label"], float(row["times_threshold"])) for row in rows}
    assert len(found) == len(rows)
    assert found == expected
    assert {split for split, _ in found} == set(SPLITS)
    times = [float(row["times_threshold"]) for row in rows]
    assert times == sorted(times, reverse=True)


def test_predictions_for_other_images_are_refused(copy: Path) -> None:
    path = copy / "data/predictions/train_folds.csv"
    path.write_text(path.read_text() + "Training/female/1.jpg,female,female,1,0.9,0.1,1\n")
    with pytest.raises(
        DataError, match=r"train_folds.csv: not about the \d+ images of train; run `dvc repro -f train`"
    ):
        run("evaluate", copy)


def test_evaluation_goes_on_with_the_training_run_and_registers(whole: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{whole / 'mlflow.db'}")
    run_id = json.loads((whole / "models/mlflow_run.json").read_text())["run_id"]
    assert "test/accuracy" in client.get_run(run_id).data.metrics
    assert client.get_model_version("gender-classifier", "1").run_id == run_id


def test_the_model_file_says_what_it_is(whole: Path) -> None:
    metadata = Predictor(whole / "models/model.onnx").metadata
    manifest = hashlib.sha256((whole / "data/verified/manifest.csv").read_bytes()).hexdigest()
    assert manifest.startswith(metadata["data_digest"])
    assert metadata["version"] == __version__
    assert metadata["min_side"] == "32"
    info = json.loads((whole / "data/processed/dataset.json").read_text())
    assert json.loads(metadata["crop"]) == [info["widest"], info["aspect"]]
    train = set(read_index(whole / "data/processed/train_index.csv"))
    ratios = [
        one.width / one.height for one in read_manifest(whole / "data/verified/manifest.csv") if one.member in train
    ]
    assert info["aspect"] == pytest.approx(np.median(ratios), abs=0.002)
    assert np.mean(np.array(ratios) > info["widest"]) <= 0.01
    assert max(ratios) < 1  # nothing in the sample is as wide as high: squares are cropped
    assert info["widest"] <= max(ratios) + 1e-4
    assert json.loads(metadata["metrics"]) == json.loads((whole / "metrics/evaluate.json").read_text())["test"]
    card = (whole / "models/model_card.md").read_text()
    assert metadata["limits"].startswith("> Synthetic data")
    assert metadata["limits"].partition("## Intended use")[2] in card


def test_the_model_file_knows_how_its_training_data_are_distributed(whole: Path) -> None:
    reference = parse_reference(Predictor(whole / "models/model.onnx").metadata["reference"], "model.onnx")
    images = np.load(whole / "data/processed/train_images.npy")
    assert set(reference) == set(UNITS)
    assert {name: one.split for name, one in reference.items() if one.split == "val"} == dict.fromkeys(
        ("class", "confidence", "unfamiliar"), "val"
    )
    for name in ("width", "height", "brightness", "contrast"):
        assert reference[name].total == len(images)
    with (whole / "data/verified/manifest.csv").open() as file:
        widths = {row["member"]: int(row["width"]) for row in csv.DictReader(file)}
    with (whole / "data/processed/train_index.csv").open() as file:
        ordered = sorted(widths[row["member"]] for row in csv.DictReader(file))
    assert reference["width"].quantile(0.5) == pytest.approx(ordered[len(ordered) // 2], abs=1)
    assert reference["brightness"].quantile(0.5) == pytest.approx(
        np.median(measure_pixels(images)["brightness"]), abs=1 / 128
    )
    with (whole / "data/predictions/val.csv").open() as file:
        called = [row["predicted"] for row in csv.DictReader(file)]
    assert reference["class"].categories == ("female", "male")
    assert reference["class"].counts.tolist() == [called.count("female"), called.count("male")]


def test_further_sets_are_measured_as_the_test_set_is(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test set once more, as a table with an attribute, gets the test set's figures; training images get none."""
    monkeypatch.setattr(groups, "MIN_IMAGES", 5)
    monkeypatch.setattr(groups, "MIN_PER_CLASS", 1)
    with Archive(copy / "data/raw.zip") as archive, (copy / "data/processed/test_index.csv").open() as file:
        test = list(csv.DictReader(file))
        with (copy / "data/processed/train_index.csv").open() as more:
            rows = test + list(csv.DictReader(more))[:7]
        (copy / "again").mkdir()
        lines = ["path,label,side"]
        for number, row in enumerate(rows):
            (copy / "again" / f"{number}.jpg").write_bytes(archive.read(row["member"]))
            lines.append(f"{number}.jpg,{row['label']},{'left' if number % 2 else 'right'}")
    (copy / "again" / "set.csv").write_text("\n".join(lines))
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["evaluate"] |= {"extra": {"again": "again/set.csv"}, "robustness_images": 0}
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    run("evaluate", copy)
    assert "again: accuracy" in capsys.readouterr().out
    report = json.loads((copy / "metrics/extra.json").read_text())["again"]
    expected = json.loads((copy / "metrics/test_report.json").read_text())
    of_test_alone = {"tta_share", "accuracy_without_tta", "nonfaces_unfamiliar_share"}
    assert of_test_alone <= set(expected)
    gap = report["metrics"]["group_gap"]
    assert {key: value for key, value in report["metrics"].items() if "group" not in key} == pytest.approx(
        {key: value for key, value in expected.items() if key not in of_test_alone}
    )
    assert report["confusion"] == json.loads((copy / "metrics/test_confusion.json").read_text())
    assert report["left_out"] == {"seen in train": 7}
    with (copy / "metrics/extra_attributes.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["set"], row["attribute"], row["value"]) for row in table] == [
        ("again", "all", ""), ("again", "side", "left"), ("again", "side", "right"),
    ]  # fmt: skip
    assert int(table[0]["n"]) == len(test) == int(table[1]["n"]) + int(table[2]["n"])
    with (copy / "data/predictions/extra.csv").open() as file:
        assert sum(row["status"] == "ok" for row in csv.DictReader(file)) == len(test)
    assert (copy / "metrics/figures/evaluate/extra_again_attributes.png").exists()
    client = MlflowClient(tracking_uri=f"sqlite:///{copy / 'mlflow.db'}")
    # Measured with other params, the model's row stays as it was; a row of its own has both.
    found = client.search_runs([client.get_experiment_by_name("gender-classifier").experiment_id])
    rows = [one.data for one in found if "extra/again/accuracy" in one.data.metrics]
    assert [one.metrics["extra/again/accuracy"] for one in rows] == [report["metrics"]["accuracy"]]
    assert rows[0].params["evaluate.extra.again"] == "again/set.csv"
    tags = client.get_model_version_by_alias("gender-classifier", "challenger").tags
    assert float(tags["extra/again/group_gap"]) == pytest.approx(gap, rel=1e-4)
    assert re.fullmatch("[0-9a-f]{8,}", tags["extra.again.digest"])


def test_without_further_sets_their_tables_are_empty(whole: Path) -> None:
    assert json.loads((whole / "metrics/extra.json").read_text()) == {}
    assert len((whole / "metrics/extra_attributes.csv").read_text().splitlines()) == 1


def test_a_further_set_that_is_not_there_stops_the_stage_before_it_measures(copy: Path) -> None:
    (copy / "metrics/evaluate.json").unlink()
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["evaluate"]["extra"] = {"foreign": "nowhere.zip"}
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(SourceError, match="evaluate.extra.foreign: .*nowhere.zip: no such folder or file"):
        run("evaluate", copy)
    assert not (copy / "metrics/evaluate.json").exists()


def test_a_store_that_lost_the_run_gets_a_new_one_and_the_same_model(
    whole: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / "mlflow.db").unlink()
    run("evaluate", copy)
    assert "opening a new one" in caplog.text
    assert (copy / "models/model.onnx").read_bytes() == (whole / "models/model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("stage", "path", "error", "message"),
    [
        ("verify", "data/raw.zip", Exception, "not a whole zip file"),
        ("preprocess", "data/verified/manifest.csv", DataError, "line 1 lacks the column"),
        ("train", "data/processed/train_images.npy", DataError, "not a whole .npy file"),
        ("evaluate", "models/model.safetensors", ModelError, "not a whole safetensors file"),
        ("evaluate", "data/processed/test_labels.npy", DataError, "not a whole .npy file"),
        ("evaluate", "data/predictions/train_folds.csv", DataError, r"line 1 lacks the column member"),
    ],
)
def test_torn_inputs_are_refused(copy: Path, stage: str, path: str, error: type[Exception], message: str) -> None:
    whole = (copy / path).read_bytes()
    (copy / path).write_bytes(whole[20 : len(whole) // 2])
    with pytest.raises(error, match=message):
        run(stage, copy)


def test_a_model_for_other_images_is_refused(copy: Path) -> None:
    info = json.loads((copy / "data/processed/dataset.json").read_text())
    (copy / "data/processed/dataset.json").write_text(json.dumps(info | {"image_size": 96}))
    with pytest.raises(DataError, match="made for 64 px"):
        run("evaluate", copy)


def test_too_many_rejects_write_the_report_and_no_manifest(copy: Path) -> None:
    shutil.rmtree(copy / "data/verified")
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["verify"]["max_rejected"] = 0.01
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(DataError, match=r"images rejected .* more than the tolerated 1.00%"):
        run("verify", copy)
    assert sorted(path.name for path in (copy / "data/verified").iterdir()) == ["quality.csv", "report.json"]


def start(stage: str, folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "stages" / f"{stage}.py"), *arguments],
        cwd=folder, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_second_signal_does_not_interrupt_what_the_first_began(tmp_path: Path) -> None:
    """DVC hands a signal on that the shell has sent to the whole group."""
    shrink(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "stage.py").write_text(
        "import os, signal\n"
        "from gender_classifier.pipeline.stage import run_stage\n"
        "def main(layout, params):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('closed')\n"
        "run_stage('train', main)\n",
    )
    ended = subprocess.run([sys.executable, "stage.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "closed\n")
    assert ended.stderr == ""


def test_what_people_decided_changes_labels_and_is_not_proposed_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image of val relabelled, one of test removed, every other of both found right; one row of another source."""
    layout = Layout(copy)

    def read_indices(*splits: str) -> dict[str, list[dict[str, str]]]:
        texts = {split: layout.index_path(split).read_text().splitlines() for split in splits}
        return {split: list(csv.DictReader(lines)) for split, lines in texts.items()}

    before = read_indices("train", "val", "test")
    train, changed, gone = layout.index_path("train").read_bytes(), before["val"][0], before["test"][0]
    other = {"female": "male", "male": "female"}[changed["label"]]
    after = {row["sha256"]: row["label"] for split in ("val", "test") for row in before[split]}
    after |= {changed["sha256"]: other, gone["sha256"]: "", "0" * 64: "cat"}
    labels = {row["sha256"]: row["label"] for rows in before.values() for row in rows}
    write_corrections(
        layout.corrections_path,
        (Correction(key, "", labels.get(key, "dog"), label, "2026-01-31T09:30:00Z") for key, label in after.items()),
    )
    for stage in ("verify", "preprocess", "evaluate"):
        run(stage, copy)
    told = capsys.readouterr().out
    assert f"labels changed: 1, found right: {len(after) - 3}, images removed: 1; images that this source does" in told
    assert layout.index_path("train").read_bytes() == train
    found = read_indices("val", "test")
    assert [row["label"] for row in found["val"]] == [other, *(row["label"] for row in before["val"][1:])]
    assert [row["member"] for row in found["test"]] == [row["member"] for row in before["test"][1:]]
    assert read_info(layout.dataset_path).corrections == {"val": 1, "test": 1}
    for path in (layout.suspects_path, layout.strangers_path):
        with path.open() as file:
            assert not [row for row in csv.DictReader(file) if row["split"] in found]
    client = MlflowClient(tracking_uri=f"sqlite:///{copy / 'mlflow.db'}")
    version = client.get_model_version("gender-classifier", "1")
    assert [version.tags[f"data.corrections.{split}"] for split in ("train", "val", "test")] == ["0", "1", "1"]


def test_an_error_is_one_line_and_a_traceback_on_request(tmp_path: Path) -> None:
    shrink(tmp_path, lr="fast")  # each stage checks the params of all; this one starts quickest
    line = f"{tmp_path}/params.yaml: `lr` is str 'fast'; it must be a number, above 0 and at most 100"
    process = start("ingest", tmp_path)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, f"ingest: error: {line}\n")
    for process in (start("ingest", tmp_path, "--debug"), start("ingest", tmp_path, GENDER_CLASSIFIER_DEBUG="1")):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.startswith("Traceback")
        assert errors.endswith(f"ParamsError: {line}\n")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["corrections.csv", "data", "params.yaml"]


def test_an_error_in_dvcs_copy_does_not_name_its_folder(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmpa1"
    (copy / ".dvc").mkdir(parents=True)
    shrink(copy, lr="fast")
    _, errors = start("ingest", copy, DVC_ROOT=str(tmp_path)).communicate(timeout=60)
    assert errors == "ingest: error: params.yaml: `lr` is str 'fast'; it must be a number, above 0 and at most 100\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_is_marked_killed_and_leaves_no_model(
    tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    shrink(tmp_path, epochs=1000)
    for stage in STAGES[:3]:
        run(stage, tmp_path)
    process = start("train", tmp_path)
    request.addfinalizer(process.kill)
    deadline = time.monotonic() + 60
    curves = tmp_path / "metrics/curves.csv"
    # The second row on disk: the first is in MLflow by then.
    while not curves.exists() or len(curves.read_text().splitlines()) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert not (tmp_path / "models/model.safetensors").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    run_id = json.loads((tmp_path / "models/mlflow_run.json").read_text())["run_id"]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_run(run_id).info.status == "KILLED"
    assert len(client.get_metric_history(run_id, "val/loss")) >= 1


def test_garbage_is_collected_while_a_stage_works_and_not_before(tmp_path: Path) -> None:
    shrink(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "stages").mkdir()
    shutil.copy(ROOT / "stages" / "_source.py", tmp_path / "stages")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    (tmp_path / "stages" / "train.py").write_text(
        "import _source, gc\n"
        "from gender_classifier.pipeline.stage import run_stage\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 0)\n"
        "def main(layout, params):\n"
        "    print(gc.isenabled(), gc.get_freeze_count() > 1000)\n"
        "if __name__ == '__main__':\n"
        "    run_stage('train', main)\n",
    )

    def run_code(*words: str) -> list[str]:
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()

    assert run_code("stages/train.py") == ["False False", "True True"]
    assert run_code("-c", "import sys; sys.path.insert(0, 'stages'); import train") == ["True False"]
