"""Where the project is, the files that one stage hands to another, and those that a checkout keeps between runs."""

import os
from dataclasses import dataclass
from pathlib import Path

PRETRAINED_DIR = Path(__file__).parents[1] / "pretrained"
"""The model that this package ships."""


class OutputPath:
    """A path of :class:`Layout`, declared relative to its root."""

    def __init__(self, relative: str) -> None:
        """Declare ``relative``, with ``/`` between parts."""
        self.relative = relative

    def __get__(self, layout: "Layout", owner: "type[Layout]") -> Path:
        """Return the path below the layout's root."""
        return layout.root / self.relative


@dataclass(frozen=True)
class Layout:
    """The files of one checkout, all below ``root``."""

    root: Path

    params_path = OutputPath("params.yaml")

    # ingest
    raw_archive_path = OutputPath("data/raw.zip")
    snapshot_path = OutputPath("data/raw.json")
    ingest_report_path = OutputPath("metrics/ingest.json")

    # verify
    manifest_path = OutputPath("data/verified/manifest.csv")
    findings_path = OutputPath("data/verified/report.json")
    verify_report_path = OutputPath("metrics/verify.json")

    # preprocess
    processed_dir = OutputPath("data/processed")
    dataset_path = OutputPath("data/processed/dataset.json")
    reference_path = OutputPath("data/processed/reference.json")
    """Histograms of brightness, contrast and size over the training images."""
    preprocess_report_path = OutputPath("metrics/preprocess.json")

    # train
    model_path = OutputPath("models/model.safetensors")
    mlflow_run_path = OutputPath("models/mlflow_run.json")
    train_report_path = OutputPath("metrics/train.json")
    curves_path = OutputPath("metrics/curves.csv")
    val_confusion_path = OutputPath("metrics/val_confusion.json")
    val_predictions_path = OutputPath("data/predictions/val.csv")

    # evaluate
    evaluate_report_path = OutputPath("metrics/evaluate.json")
    test_report_path = OutputPath("metrics/test_report.json")
    test_confusion_path = OutputPath("metrics/test_confusion.json")
    roc_path = OutputPath("metrics/roc.csv")
    reliability_path = OutputPath("metrics/reliability.csv")
    thresholds_path = OutputPath("metrics/thresholds.csv")
    robustness_path = OutputPath("metrics/robustness.csv")
    test_predictions_path = OutputPath("data/predictions/test.csv")
    label_issues_path = OutputPath("data/predictions/label_issues.csv")
    extra_report_path = OutputPath("metrics/extra.json")
    """Of the labelled sets in ``evaluate.extra``: an empty object where there are none."""
    extra_attributes_path = OutputPath("metrics/extra_attributes.csv")
    extra_predictions_path = OutputPath("data/predictions/extra.csv")
    card_path = OutputPath("models/model_card.md")
    onnx_path = OutputPath("models/model.onnx")

    def images_path(self, split: str) -> Path:
        """Return where the array of images of ``train``, ``val`` or ``test`` is."""
        return self.processed_dir / f"{split}_images.npy"

    def labels_path(self, split: str) -> Path:
        """Return where the labels of a split are."""
        return self.processed_dir / f"{split}_labels.npy"

    def index_path(self, split: str) -> Path:
        """Return the table that names each row of a split's arrays."""
        return self.processed_dir / f"{split}_index.csv"

    def figures_dir(self, stage: str) -> Path:
        """Return the folder of a stage's PNG figures: a DVC output, since some show faces."""
        return self.root / "metrics" / "figures" / stage

    @property
    def checkpoints_dir(self) -> Path:
        """Of the main checkout: a ``--temp`` run's folder vanishes, and DVC empties outputs."""
        return find_main_root(self.root) / ".checkpoints"

    @property
    def outbox_dir(self) -> Path:
        """Entries that the tracking store has not received yet; of the main checkout, as the checkpoints."""
        return find_main_root(self.root) / ".mlflow-unsent"


def find_checkout(folder: Path) -> Path | None:
    """Return the nearest folder at or above ``folder`` that holds a ``dvc.yaml``, or None outside any project.

    ``.dvc`` and ``.git`` may lie further up: the project may be one folder of a larger repository.
    """
    folder = folder.resolve()
    return next((place for place in (folder, *folder.parents) if (place / "dvc.yaml").is_file()), None)


def find_main_root(root: Path) -> Path:
    """Return the checkout that the user works in, for the project folder ``root``.

    A ``dvc exp run --temp`` or queued run works in a copy of the repository that vanishes after the run. In it,
    ``DVC_ROOT`` still names the repository that was copied; the project has the same place there as in the copy.
    Anywhere else this is ``root`` itself.
    """
    root = root.resolve()
    named = os.environ.get("DVC_ROOT")
    if not named:
        return root
    main = Path(named).resolve()
    places = (root, *root.parents)
    if root.is_relative_to(main / ".dvc"):
        copies = [place for place in places if place.is_relative_to(main / ".dvc") and (place / ".dvc").is_dir()]
        return main / root.relative_to(copies[0] if copies else root)
    has_repository = any((place / ".dvc").is_dir() for place in places)
    return root if has_repository else main  # a bare copy of the files has no repository of its own
