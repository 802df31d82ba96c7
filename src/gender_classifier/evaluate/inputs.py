"""Load the inputs of evaluation: the model, the arrays and the reports of earlier stages."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gender_classifier.common.files import read_json
from gender_classifier.common.paths import Layout
from gender_classifier.common.spreadsheet import read_table
from gender_classifier.data.corrections import read_corrections
from gender_classifier.data.dataset import DatasetInfo, PackedSplit, open_split, read_digests, read_index, read_info
from gender_classifier.data.file_names import describe_value
from gender_classifier.data.images import Crop
from gender_classifier.data.names import SPLITS
from gender_classifier.data.raw_table import Attributes, read_attributes
from gender_classifier.errors import DataError
from gender_classifier.evaluate.unfamiliar.shares import Scorer
from gender_classifier.metrics.arrays import Floats
from gender_classifier.metrics.histograms import Histogram, parse_reference
from gender_classifier.model.model_file import ModelSpec, load_model
from gender_classifier.model.unfamiliarity import Unfamiliarity, compute_unfamiliarity, load_unfamiliarity


@dataclass(frozen=True)
class Inputs:
    """The model and its data.

    Attributes:
        run_id: MLflow run that trained the model.
        source: of the data set; the last part of a full path.
        params: with which the model was trained, as ``section.key``.
        model: network.
        spec: description in the model file.
        info: description of the data set.
        train: arrays of train, which the model has seen.
        train_probs: for train, of models that have not seen it, float64 (N, C); None without ``train.label_folds``.
        val: arrays of val.
        test: arrays of test.
        attributes: of the images of test.
        members: names of the images of each split, in the order of its arrays.
        seen: SHA-256 of each image of train and val to its split.
        decided: names of the images about whose label a person has decided.
        best: content of metrics/train.json.
        curves: rows of metrics/curves.csv.
        reference: distributions of the training data.
        unfamiliarity: in the model file; None in one of older versions.
    """

    run_id: str
    source: str
    params: Mapping[str, object]
    model: nn.Module
    spec: ModelSpec
    info: DatasetInfo
    train: PackedSplit
    train_probs: Floats | None
    val: PackedSplit
    test: PackedSplit
    attributes: Attributes
    members: Mapping[str, Sequence[str]]
    seen: Mapping[str, str]
    decided: Set[str]
    best: Mapping[str, float]
    curves: Sequence[Mapping[str, str]]
    reference: Mapping[str, Histogram]
    unfamiliarity: Unfamiliarity | None = None


def find_scorer(inputs: Inputs) -> Scorer | None:
    """Return what tells unfamiliar images; None if the model cannot."""
    if inputs.unfamiliarity is None:
        return None
    score = partial(compute_unfamiliarity, inputs.model, inputs.spec, inputs.unfamiliarity)
    return Scorer(score, float(inputs.unfamiliarity.threshold))


def find_crop(info: DatasetInfo) -> Crop | None:
    """Return which images lose their sides in use: those wider than 99 % of the training images."""
    return Crop(info.widest, info.aspect) if info.widest else None


def load_inputs(layout: Layout, source: str, params: Mapping[str, object]) -> Inputs:
    """Load the model and its data.

    Args:
        layout: gives the paths.
        source: of the data set, as in ``params.yaml``.
        params: with which the model was trained, as ``section.key``.

    Raises:
        GenderClassifierError: a file is missing or damaged, or the model is for another image size or other classes.
    """
    info = read_info(layout.dataset_path)
    model, spec = load_model(layout.model_path)
    if (spec.classes, spec.image_size) != (info.classes, info.image_size):
        raise DataError(
            f"{layout.model_path}: made for {spec.image_size} px and {', '.join(spec.classes)}, the arrays have "
            f"{info.image_size} px and {', '.join(info.classes)}; run `dvc repro`"
        )
    model.to(memory_format=torch.channels_last)  # like its input: 1.13 times the images/s
    train, val, test = (open_split(layout.images_path(name), layout.labels_path(name)) for name in SPLITS)
    columns, rows = read_table(layout.curves_path, (), "run `dvc repro train`")
    curves = [dict(zip(columns, cells, strict=True)) for _, cells in rows]
    members = {name: read_index(layout.index_path(name)) for name in SPLITS}
    digests = {name: read_digests(layout.index_path(name)) for name in SPLITS}
    corrections = read_corrections(layout.corrections_path)
    decided = {
        member
        for name in SPLITS
        for member, sha256 in zip(members[name], digests[name], strict=True)
        if sha256 in corrections
    }
    return Inputs(
        run_id=str(read_json(layout.mlflow_run_path).get("run_id")),
        source=describe_value(source),
        params=params,
        model=model,
        spec=spec,
        info=info,
        train=train,
        train_probs=_read_folds(layout.folds_path, spec.classes, members["train"]),
        val=val,
        test=test,
        attributes=read_attributes(layout.images_table_path, members["test"]),
        members=members,
        seen={sha256: split for split in ("train", "val") for sha256 in digests[split]},
        decided=decided,
        best=read_json(layout.train_report_path)["val"],
        curves=curves,
        reference=parse_reference(layout.reference_path.read_text(encoding="utf-8"), str(layout.reference_path)),
        unfamiliarity=load_unfamiliarity(layout.model_path, model, spec),
    )


def _read_folds(path: Path, classes: Sequence[str], members: Sequence[str]) -> Floats | None:
    """Return the probabilities in ``train_folds.csv``, float64 (N, C); None where it has no rows.

    Raises:
        DataError: the file is missing, damaged, or about other images or classes than ``members`` and ``classes``.
    """
    advice = "run `dvc repro train`"
    columns = ["member", *(f"prob_{name}" for name in classes)]
    rows = [cells for _, cells in read_table(path, columns, advice)[1]]
    names = [name for name, *_ in rows]
    try:
        probs = np.array([cells[1 : len(columns)] for cells in rows], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path}: not a table of predictions ({error}); {advice}") from None
    if not rows:
        return None
    if names != list(members):
        raise DataError(f"{path}: not about the {len(members)} images of train; run `dvc repro -f train`")
    return probs
