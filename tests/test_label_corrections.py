"""Decisions about labels under real DVC: what runs again, and that experiments take uncommitted ones along."""

import csv
from pathlib import Path

import pytest
from checkout import Checkout, copy_checkout

from gender_classifier.common.paths import Layout
from gender_classifier.data.corrections import Correction, edit_corrections, now

pytestmark = pytest.mark.slow


def decide(checkout: Checkout, split: str, label: str | None = None) -> None:
    """Decide about the first image of a split that it is called rightly, or ``label``; an empty text removes it."""
    layout = Layout(checkout.folder)
    row = next(csv.DictReader(layout.index_path(split).read_text().splitlines()))
    with edit_corrections(layout.corrections_path) as corrections:
        after = row["label"] if label is None else label
        corrections[row["sha256"]] = Correction(row["sha256"], row["member"], row["label"], after, now())


def test_a_label_found_right_trains_nothing_and_an_experiment_takes_corrections_along(
    repro: Checkout, tmp_path: Path
) -> None:
    checkout = copy_checkout(repro, tmp_path / "copied")
    decide(checkout, "test")
    said = checkout.run("dvc", "repro").stdout
    assert "labels changed: 0, found right: 1, images removed: 0" in said
    assert [stage for stage in ("ingest", "verify", "preprocess", "train", "evaluate") if f"'{stage}':" in said] == [
        "verify", "evaluate"]  # fmt: skip
    decide(checkout, "val", "")
    said = checkout.run("dvc", "exp", "run", "--temp").stdout
    assert "labels changed: 0, found right: 1, images removed: 1" in said
    run = checkout.runs()[-1]
    tags = [run.data.tags[f"data.corrections.{split}"] for split in ("train", "val", "test")]
    assert tags == ["0", "1", "0"]
    assert checkout.client.get_model_version("gender-classifier", "2").tags["data.corrections.val"] == "1"
