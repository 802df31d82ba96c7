"""The same results elsewhere: in another clone from scratch, in one that pulls, and with real faces."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from checkout import ROOT, SMALL, Checkout, clone, copy_checkout
from scipy.special import softmax

from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import load_model

FACES = ROOT.parent / "shared" / "data" / "faces-12k.zip"


def test_another_clone_pulls_and_has_nothing_to_do(repro: Checkout, tmp_path: Path) -> None:
    """Push to a DVC remote, pull in a clone elsewhere: `dvc repro` does nothing there, the model predicts the same."""
    repro = copy_checkout(repro, tmp_path / "first")
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


@pytest.mark.slow
def test_equal_runs_give_equal_bytes(repro: Checkout, tmp_path: Path) -> None:
    again = clone(tmp_path / "again", SMALL)
    again.is_warm = False  # as a user starts it; each process hashes differently
    done = again.run("dvc", "repro")
    assert "train: best of 1 epochs is 1" in done.stdout
    assert "img/s" not in done.stderr  # no progress bar without a terminal
    lock = yaml.safe_load((again.folder / "dvc.lock").read_text())["stages"]
    first = yaml.safe_load(repro.run("git", "show", "HEAD:./dvc.lock").stdout)["stages"]
    hashes = [
        {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]} for stages in (first, lock)
    ]
    changed = {path for path in hashes[0] if hashes[0][path] != hashes[1][path]}
    assert changed == {"models/mlflow_run.json"}


@pytest.mark.slow
@pytest.mark.skipif(not FACES.is_file(), reason=f"{FACES.name} with real faces is not beside the checkout")
def test_real_faces(tmp_path: Path) -> None:
    """One epoch on 10,000 real images learns: chance is 0.5, one epoch gives about 0.9."""
    checkout = clone(tmp_path / "faces", {"epochs": 1, "source": str(FACES)})
    checkout.run("dvc", "repro", OMP_NUM_THREADS="2")
    assert checkout.read("data/raw.json")["num_images"] == 12_000
    assert checkout.read("metrics/evaluate.json")["test"]["accuracy"] > 0.8
    assert checkout.runs()[0].data.metrics["test/accuracy"] > 0.8
