"""Every path of the pipeline, once, and the names that its files are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gender_classifier.common.checkout import find_main_root

CLASSES = ("female", "male")
"""Class names in label order: label 0 is ``female``, label 1 is ``male`` (the positive class)."""

RAW_SPLITS = ("Training", "Validation")
"""The data set's own folders. ``Training`` becomes train and val, ``Validation`` is the test set."""

SPLITS = ("train", "val", "test")

SAMPLE = "sample"
"""The source that is drawn by code."""

SAMPLE_NOTE = "Synthetic data, drawn by this project: figures measured on it say nothing about faces."


@dataclass(frozen=True)
class Layout:
    """The files of one checkout, all below ``root``."""

    root: Path

    @property
    def params_path(self) -> Path:
        return self.root / "params.yaml"

    # ingest
    @property
    def raw_archive_path(self) -> Path:
        return self.root / "data" / "raw.zip"

    @property
    def snapshot_path(self) -> Path:
        return self.root / "data" / "raw.json"

    @property
    def ingest_report_path(self) -> Path:
        return self.root / "metrics" / "ingest.json"

    # verify
    @property
    def manifest_path(self) -> Path:
        return self.root / "data" / "verified" / "manifest.csv"

    @property
    def findings_path(self) -> Path:
        return self.root / "data" / "verified" / "report.json"

    @property
    def verify_report_path(self) -> Path:
        return self.root / "metrics" / "verify.json"

    # preprocess
    @property
    def processed_dir(self) -> Path:
        return self.root / "data" / "processed"

    def images_path(self, split: str) -> Path:
        return self.processed_dir / f"{split}_images.npy"

    def labels_path(self, split: str) -> Path:
        return self.processed_dir / f"{split}_labels.npy"

    def index_path(self, split: str) -> Path:
        return self.processed_dir / f"{split}_index.csv"

    @property
    def dataset_path(self) -> Path:
        return self.processed_dir / "dataset.json"

    @property
    def reference_path(self) -> Path:
        """How train's pictures are distributed: brightness, contrast and size, as histograms."""
        return self.processed_dir / "reference.json"

    @property
    def preprocess_report_path(self) -> Path:
        return self.root / "metrics" / "preprocess.json"

    # train
    @property
    def model_path(self) -> Path:
        return self.root / "models" / "model.safetensors"

    @property
    def mlflow_run_path(self) -> Path:
        return self.root / "models" / "mlflow_run.json"

    @property
    def train_report_path(self) -> Path:
        return self.root / "metrics" / "train.json"

    @property
    def curves_path(self) -> Path:
        return self.root / "metrics" / "curves.csv"

    @property
    def val_confusion_path(self) -> Path:
        return self.root / "metrics" / "val_confusion.json"

    @property
    def val_predictions_path(self) -> Path:
        return self.root / "data" / "predictions" / "val.csv"

    @property
    def checkpoints_dir(self) -> Path:
        """Of the main checkout: a stopped ``--temp`` run leaves its folder, and DVC empties outputs."""
        return find_main_root(self.root) / ".checkpoints"

    @property
    def outbox_dir(self) -> Path:
        """What the tracking store has not received yet; of the main checkout, as the checkpoints."""
        return find_main_root(self.root) / ".mlflow-unsent"

    # evaluate
    @property
    def evaluate_report_path(self) -> Path:
        return self.root / "metrics" / "evaluate.json"

    @property
    def test_confusion_path(self) -> Path:
        return self.root / "metrics" / "test_confusion.json"

    @property
    def roc_path(self) -> Path:
        return self.root / "metrics" / "roc.csv"

    @property
    def reliability_path(self) -> Path:
        return self.root / "metrics" / "reliability.csv"

    @property
    def thresholds_path(self) -> Path:
        return self.root / "metrics" / "thresholds.csv"

    @property
    def robustness_path(self) -> Path:
        return self.root / "metrics" / "robustness.csv"

    @property
    def label_issues_path(self) -> Path:
        return self.root / "data" / "predictions" / "label_issues.csv"

    @property
    def test_predictions_path(self) -> Path:
        return self.root / "data" / "predictions" / "test.csv"

    @property
    def test_report_path(self) -> Path:
        return self.root / "metrics" / "test_report.json"

    @property
    def extra_report_path(self) -> Path:
        """Of the further labelled sets, ``evaluate.extra``: an empty object where there are none."""
        return self.root / "metrics" / "extra.json"

    @property
    def extra_attributes_path(self) -> Path:
        return self.root / "metrics" / "extra_attributes.csv"

    @property
    def extra_predictions_path(self) -> Path:
        return self.root / "data" / "predictions" / "extra.csv"

    @property
    def card_path(self) -> Path:
        return self.root / "models" / "model_card.md"

    @property
    def onnx_path(self) -> Path:
        return self.root / "models" / "model.onnx"

    def figures_dir(self, stage: str) -> Path:
        """PNG pictures of ``stage``: a DVC output, since some show faces."""
        return self.root / "metrics" / "figures" / stage
