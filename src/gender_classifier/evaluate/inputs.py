"""Load the inputs of evaluation: the model, the arrays and the reports of earlier stages."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gender_classifier.common.files import read_json
from gender_classifier.common.paths import Layout
from gender_classifier.data.dataset import DatasetInfo, PackedSplit, open_split, read_digests, read_index, read_info
from gender_classifier.data.file_names import describe_value
from gender_classifier.data.images import Crop
from gender_classifier.data.names import SPLITS
from gender_classifier.errors import DataError
from gender_classifier.metrics.histograms import Histogram, parse_reference
from gender_classifier.model.model_file import ModelSpec, load_model


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
        val: arrays of val.
        test: arrays of test.
        members: names of the images of each split, in the order of its arrays.
        seen: SHA-256 of each image of train and val to its split.
        best: content of metrics/train.json.
        curves: rows of metrics/curves.csv.
        reference: distributions of the training data.
    """

    run_id: str
    source: str
    params: Mapping[str, object]
    model: nn.Module
    spec: ModelSpec
    info: DatasetInfo
    val: PackedSplit
    test: PackedSplit
    members: Mapping[str, Sequence[str]]
    seen: Mapping[str, str]
    best: Mapping[str, float]
    curves: Sequence[Mapping[str, str]]
    reference: Mapping[str, Histogram]


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
    val, test = (open_split(layout.images_path(name), layout.labels_path(name)) for name in ("val", "test"))
    with layout.curves_path.open(encoding="utf-8", newline="") as file:
        curves = list(csv.DictReader(file))
    return Inputs(
        run_id=str(read_json(layout.mlflow_run_path).get("run_id")),
        source=describe_value(source),
        params=params,
        model=model,
        spec=spec,
        info=info,
        val=val,
        test=test,
        members={name: read_index(layout.index_path(name)) for name in SPLITS},
        seen={sha256: split for split in ("train", "val") for sha256 in read_digests(layout.index_path(split))},
        best=read_json(layout.train_report_path)["val"],
        curves=curves,
        reference=parse_reference(layout.reference_path.read_text(encoding="utf-8"), str(layout.reference_path)),
    )
