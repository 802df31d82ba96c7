"""The trained model as one ONNX file that needs neither torch nor this project: images in, probabilities out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from torch import nn

from gender_classifier.common.files import short_digest, write_bytes
from gender_classifier.errors import ModelError
from gender_classifier.evaluate.inputs import Inputs, find_crop
from gender_classifier.evaluate.measure import Evaluation
from gender_classifier.evaluate.measured import MeasuredSet
from gender_classifier.evaluate.model_card import describe_limits
from gender_classifier.metrics.histograms import measure_predictions, start_histogram, to_jsonable
from gender_classifier.metrics.scores import select_headlines
from gender_classifier.model.metadata import THRESHOLD_KEY
from gender_classifier.model.model_file import ModelSpec, describe_network
from gender_classifier.model.serving import export_graph
from gender_classifier.model.unfamiliarity import Unfamiliarity
from gender_classifier.version import __version__

_TIE = 1e-5
"""Two probabilities nearer than this are equal: float32 kernels of torch and onnxruntime round differently."""


def export_onnx(
    path: Path,
    model: nn.Module,
    spec: ModelSpec,
    metadata: Mapping[str, str],
    unfamiliarity: Unfamiliarity | None = None,
) -> None:
    """Write ``model`` as ONNX: ``images`` uint8 (N, S, S, 3) RGB to ``probs`` float32 (N, num_classes), any N.

    Args:
        path: where to.
        model: a network of ``build_model`` on the CPU.
        spec: its description; classes, image size, head and network are kept in the file's metadata.
        metadata: more text to keep there.
        unfamiliarity: of the model; gives the file its second output, with the threshold in the metadata.
    """
    proto = export_graph(model, spec, unfamiliarity)
    _strip_provenance(proto)
    entries = {
        "classes": json.dumps(spec.classes),
        "image_size": str(spec.image_size),
        "head": spec.head,
        "network": describe_network(spec),
        **metadata,
    }
    if unfamiliarity is not None:
        entries[THRESHOLD_KEY] = repr(float(unfamiliarity.threshold))
    onnx.helper.set_model_props(proto, dict(sorted(entries.items())))
    onnx.checker.check_model(proto)
    write_bytes(path, proto.SerializeToString(deterministic=True))


def export_checked(
    path: Path, inputs: Inputs, evaluation: Evaluation, measured: Sequence[MeasuredSet], min_side: int
) -> float:
    """Write the evaluated model with its description; return how far its probabilities are from torch's, at most.

    Args:
        path: file to write.
        inputs: the model and its data.
        evaluation: results on the test set.
        measured: results on every set.
        min_side: px; images with a shorter side are refused in use, as by ``verify``.

    Raises:
        ModelError: a probability or a prediction differs.
    """
    described = describe_model(inputs, evaluation, measured, min_side)
    export_onnx(path, inputs.model, inputs.spec, described, inputs.unfamiliarity)
    scores = evaluation.unfamiliar.test if evaluation.unfamiliar else None
    return check_export(path, inputs.test.images, evaluation.report.probs, scores)


def describe_model(
    inputs: Inputs, evaluation: Evaluation, measured: Sequence[MeasuredSet], min_side: int
) -> dict[str, str]:
    """Return what the model file says of itself to the predictor and the service; no time, host or path."""
    reference = dict(inputs.reference)
    # Of val: its weights have not seen these images, and they come from the same images as train's.
    found = evaluation.unfamiliar
    flags = found.val > found.threshold if found else None
    for name, values in measure_predictions(evaluation.val_probs, flags).items():
        reference[name] = start_histogram(name, "val", inputs.spec.classes)
        reference[name].add(values)
    return {
        "data_digest": short_digest(inputs.info.manifest_sha256),
        "version": __version__,
        "metrics": json.dumps(select_headlines(evaluation.report.metrics)),
        "measured": json.dumps([asdict(found) for found in measured]),
        "limits": describe_limits(inputs.source, inputs.spec.classes),
        "min_side": str(min_side),
        "crop": json.dumps(find_crop(inputs.info)),
        "reference": json.dumps(to_jsonable(reference)),
    }


def compute_probs(path: Path, images: NDArray[np.uint8], *, batch_size: int = 512) -> NDArray[np.float32]:
    """Run the ONNX file on uint8 (N, S, S, 3); return float32 (N, num_classes)."""
    return compute_outputs(path, images, batch_size=batch_size)[0]


def compute_outputs(path: Path, images: NDArray[np.uint8], *, batch_size: int = 512) -> list[NDArray[np.float32]]:
    """Return what :func:`compute_probs` does, and ``unfamiliarity`` float32 (N,) if the file has it."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    starts = range(0, len(images), batch_size)
    parts = [session.run(None, {"images": np.asarray(images[i : i + batch_size])}) for i in starts]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def check_export(
    path: Path,
    images: NDArray[np.uint8],
    probs: NDArray[np.float64],
    unfamiliarity: NDArray[np.float32] | None = None,
    *,
    tolerance: float = 1e-4,
) -> float:
    """Compare the ONNX file with torch's probabilities on the same images; return the largest difference.

    Predictions must be the same as well, but where torch itself sees a tie. The tolerance of the probabilities alone
    would let an image change its class whose two highest probabilities lie within twice that.

    Args:
        path: of the ONNX file.
        images: uint8 (N, S, S, 3).
        probs: torch's, float (N, C).
        unfamiliarity: torch's, float (N,); None for a file without that output.
        tolerance: of each probability.

    Raises:
        ModelError: a probability differs by more than ``tolerance``, an unfamiliarity by more than ten times as much of
            itself, or a prediction differs.
    """
    exported, *scores = compute_outputs(path, images)
    difference = float(np.abs(exported - probs).max())
    if not difference <= tolerance:
        raise ModelError(
            f"{path}: its probabilities differ from torch's by up to {difference:.2g}, more than {tolerance:g}; "
            "report this with the versions of torch and onnxruntime"
        )
    wanted = [] if unfamiliarity is None else [unfamiliarity]
    pairs = zip(scores, wanted, strict=False)
    if len(scores) != len(wanted) or not all(np.allclose(*pair, rtol=10 * tolerance) for pair in pairs):
        raise ModelError(
            f"{path}: its unfamiliarity is missing or differs from torch's; report this with the versions of torch and "
            "onnxruntime"
        )
    top = np.sort(probs, axis=1)
    flipped = (exported.argmax(axis=1) != probs.argmax(axis=1)) & (top[:, -1] - top[:, -2] > _TIE)
    if flipped.any():
        raise ModelError(
            f"{path}: {int(flipped.sum())} of {len(probs)} predictions differ from torch's, the first in row "
            f"{int(flipped.argmax())}; report this with the versions of torch and onnxruntime"
        )
    return difference


def _strip_provenance(proto: onnx.ModelProto) -> None:
    """Drop what the exporter notes of this machine (source paths, stack traces): equal models are equal files."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
