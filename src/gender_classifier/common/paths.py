"""Paths of a checkout: files that stages share, files kept between runs, and the project's root."""

import os
from dataclasses import dataclass
from pathlib import Path

from gender_classifier.errors import ModelError

PRETRAINED = "pretrained"
"""The name of the model that this package ships; ``./pretrained`` is a path."""

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
    """Paths in one checkout, below ``root``, that more than one module uses."""

    root: Path

    params_path = OutputPath("params.yaml")

    # ingest, verify
    raw_archive_path = OutputPath("data/raw.zip")
    raw_table_path = OutputPath("data/raw.csv")
    """Label, split, group and attributes of each image of the archive."""
    corrections_path = OutputPath("data/corrections.csv")
    """What people decided about labels; in Git, and no stage writes it."""
    manifest_path = OutputPath("data/verified/manifest.csv")

    # preprocess
    processed_dir = OutputPath("data/processed")
    dataset_path = OutputPath("data/processed/dataset.json")
    images_table_path = OutputPath("data/processed/images.csv")
    """Label, split, group and attributes of each image of the splits."""
    reference_path = OutputPath("data/processed/reference.json")
    """Histograms of brightness, contrast and size over the training images."""
    groups_path = OutputPath("data/processed/train_groups.npy")
    """Number of each training image's group; see ``train.label_folds``."""

    # train
    model_path = OutputPath("models/model.safetensors")
    mlflow_run_path = OutputPath("models/mlflow_run.json")
    train_report_path = OutputPath("metrics/train.json")
    curves_path = OutputPath("metrics/curves.csv")
    val_confusion_path = OutputPath("metrics/val_confusion.json")
    folds_path = OutputPath("data/predictions/train_folds.csv")
    """Predictions for train by models that did not train on them; its header alone without ``train.label_folds``."""

    # evaluate
    card_path = OutputPath("models/model_card.md")
    onnx_path = OutputPath("models/model.onnx")
    suspects_path = OutputPath("data/predictions/label_issues.csv")
    """Images whose labels are likely wrong, the likeliest first."""
    strangers_path = OutputPath("data/predictions/unfamiliar.csv")
    """Images unlike those that the model was trained on, the most unfamiliar first."""

    def images_path(self, split: str) -> Path:
        """Return the path of a split's images, ``train``, ``val`` or ``test``."""
        return self.processed_dir / f"{split}_images.npy"

    def labels_path(self, split: str) -> Path:
        """Return the path of a split's labels."""
        return self.processed_dir / f"{split}_labels.npy"

    def index_path(self, split: str) -> Path:
        """Return the path of the table that names each row of a split's arrays."""
        return self.processed_dir / f"{split}_index.csv"

    @property
    def checkpoints_dir(self) -> Path:
        """Folder of checkpoints, in the main checkout: a ``--temp`` run's folder vanishes, and DVC empties outputs."""
        return find_main_root(self.root) / ".checkpoints"

    @property
    def outbox_dir(self) -> Path:
        """Folder of entries that the tracking store has not received yet, in the main checkout."""
        return find_main_root(self.root) / ".mlflow-unsent"


def locate_pretrained(name: str) -> Path:
    """Return the path of a file of the model that this package ships, such as ``model.onnx``.

    Raises:
        ModelError: this copy of the package ships no such file.
    """
    path = PRETRAINED_DIR / name
    if not path.is_file():
        raise ModelError(
            f"pretrained: {path}: no such file; make it in a checkout with `make pretrained SOURCE=faces.zip`, or give "
            "the path of another model"
        )
    return path


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
    return root if has_repository else main  # DVC may copy the files alone
