"""Temperature and bias at the end of an exported model's graph: fitted to labelled images, written, replaced.

The nodes follow the model's own softmax: softmax(log(p) / temperature + bias). Since log(p) differs from the logits by
one number an image, this is the same as scaling the logits, and works on every graph that ends in probabilities.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from gender_classifier.common.files import write_bytes
from gender_classifier.data.labelled_files import LabelledSource
from gender_classifier.data.labelled_pixels import Reading, check_reading, read_batches
from gender_classifier.errors import DataError, ModelError
from gender_classifier.metrics.histograms import measure_predictions, parse_reference, start_histogram, to_jsonable
from gender_classifier.metrics.platt import LEAST_PROB, Figure, Scaling, cross_validate, fit_scaling
from gender_classifier.predict.predictor import Predictor

MIN_PER_CLASS = 20
"""Images. With fewer, a fold of the cross-validation has three images of a class or less."""

_PREFIX = "calibration_"
_BASE = f"{_PREFIX}base"  # the model's own probabilities
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Calibration:
    """A scaling fitted to labelled images.

    Attributes:
        scaling: of the model's own probabilities.
        classes: names.
        counts: images of each class.
        groups: number of groups of images; 0 if each is its own.
        unfamiliar: number of images that the model does not know; None for a model that cannot tell.
        digest: SHA-256 over names, labels and contents of the images.
        figures: before and after, cross-validated.
        probs: calibrated, of the images, float64 (N, C).
    """

    scaling: Scaling
    classes: Sequence[str]
    counts: Sequence[int]
    groups: int
    unfamiliar: int | None
    digest: str
    figures: Mapping[str, Figure]
    probs: NDArray[np.float64]

    def describe(self) -> dict[str, object]:
        """Return what the model file says of it, for JSON."""
        return {
            "images": sum(self.counts),
            "counts": dict(zip(self.classes, self.counts, strict=True)),
            "groups": self.groups,
            "digest": self.digest,
            "temperature": self.scaling.temperature,
            "bias": dict(zip(self.classes, self.scaling.bias, strict=True)),
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
        }


def fit_calibration(path: Path, predictor: Predictor, labelled: LabelledSource, reading: Reading) -> Calibration:
    """Fit temperature and bias to a labelled set, and measure what they change.

    Args:
        path: of the model; one that was calibrated before is calibrated again from its own probabilities.
        predictor: of the same file.
        labelled: the open set.
        reading: empty; filled while the set is read.

    Raises:
        DataError: too many images are unreadable, a class has too few, or the labels are not related to the model.
        ModelError: the file's calibration is damaged.
    """
    base = _strip(path, onnx.load(str(path)))
    session = onnxruntime.InferenceSession(base.SerializeToString(), providers=["CPUExecutionProvider"])
    rows, own, before, flags = [], [], [], []
    batches = read_batches(
        labelled,
        reading,
        size=predictor.image_size,
        max_pixels=predictor.max_pixels,
        min_side=predictor.min_side,
        crop=predictor.crop,
    )
    for places, pixels in batches:
        rows.append(places)
        own.append(session.run(["probs"], {"images": pixels})[0])
        answers = predictor.compute(pixels)
        before.append(np.stack([answer.probs for answer in answers]))
        flags += [answer.unfamiliar for answer in answers]
    check_reading(labelled, reading)
    images = [labelled.images[row] for row in np.concatenate(rows)]
    labels = np.array([image.label for image in images], dtype=np.int64)
    counts = np.bincount(labels, minlength=len(predictor.classes)).tolist()
    for name, count in zip(predictor.classes, counts, strict=True):
        if count < MIN_PER_CLASS:
            raise DataError(
                f"{labelled.name}: {count} readable images of {name} are too few; give at least {MIN_PER_CLASS} of "
                "each class, better 100"
            )
    # Images without a group are their own.
    groups = [image.group or image.name for image in images] if any(image.group for image in images) else []
    probs = np.concatenate(own).astype(np.float64)
    try:
        scaling = fit_scaling(probs, labels)  # first, so that an error counts all images
        figures = cross_validate(probs, np.concatenate(before), labels, predictor.classes, groups)
    except DataError as error:
        raise DataError(f"{labelled.name}: {error}") from None
    return Calibration(
        scaling,
        predictor.classes,
        counts,
        len(set(groups)),
        None if None in flags else flags.count(True),
        reading.digest,
        figures,
        scaling.apply(probs),
    )


def write_calibrated(source: Path, target: Path, calibration: Calibration) -> None:
    """Write a copy of a model with a calibration, instead of the one that it may have.

    Its metadata get the entry ``calibration``. The distributions of predicted class and confidence, with which
    `monitor` compares, become those of the images of the calibration: it changes both.

    Args:
        source: model file, float32 or int8.
        target: file to write.
        calibration: of :func:`fit_calibration` for the same file.

    Raises:
        ModelError: the file's calibration is damaged, or the written graph does not compute what was fitted.
    """
    proto = onnx.load(str(source))
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    base = _strip(source, proto)
    before = base.SerializeToString()
    _append(base, calibration.scaling)
    entries["calibration"] = json.dumps(calibration.describe())
    if "reference" in entries:
        reference = parse_reference(entries["reference"], str(source))
        for name, values in measure_predictions(calibration.probs).items():
            reference[name] = start_histogram(name, "calibration", calibration.classes)
            reference[name].add(values)
        entries["reference"] = json.dumps(to_jsonable(reference))
    onnx.helper.set_model_props(base, dict(sorted(entries.items())))
    onnx.checker.check_model(base)
    content = base.SerializeToString(deterministic=True)
    _check_graph(target, before, content, calibration.scaling)
    write_bytes(target, content)


def _append(proto: onnx.ModelProto, scaling: Scaling) -> None:
    """Put a scaling between the model's probabilities and its output."""
    graph = proto.graph
    _rename(graph, "probs", _BASE)
    constants = {
        "least": np.float32(LEAST_PROB),
        "scale": np.float32(1 / scaling.temperature),
        "bias": np.array([scaling.bias], dtype=np.float32),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), _PREFIX + k) for k, v in constants.items())
    steps = (("Clip", "least"), ("Log", ""), ("Mul", "scale"), ("Add", "bias"), ("Softmax", ""))
    previous = _BASE
    for kind, constant in steps:
        output = "probs" if kind == "Softmax" else f"{_PREFIX}{kind.lower()}"
        inputs = [previous, _PREFIX + constant] if constant else [previous]
        node = onnx.helper.make_node(kind, inputs, [output], name=f"{_PREFIX}{kind.lower()}")
        if kind == "Softmax":
            node.attribute.append(onnx.helper.make_attribute("axis", 1))
        graph.node.append(node)
        previous = output


def _strip(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take the calibration out of a model, if it has one, and return the model.

    Raises:
        ModelError: the metadata name a calibration that the graph lacks.
    """
    graph = proto.graph
    says = any(entry.key == "calibration" for entry in proto.metadata_props)
    if says != any(_BASE in node.output for node in graph.node):
        raise ModelError(f"{path}: its metadata and its graph disagree on whether it is calibrated; give the original")
    if not says:
        return proto
    kept = [node for node in graph.node if not node.name.startswith(_PREFIX)]
    used = {name for node in kept for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    values = [value for value in graph.value_info if not value.name.startswith(_PREFIX)]
    for field, items in ((graph.node, kept), (graph.initializer, tensors), (graph.value_info, values)):
        del field[:]
        field.extend(items)
    _rename(graph, _BASE, "probs")
    return proto


def _rename(graph: onnx.GraphProto, before: str, after: str) -> None:
    """Rename a tensor where it is computed and used; the graph's outputs keep their names."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [after if name == before else name for name in names]


def _check_graph(target: Path, before: bytes, after: bytes, scaling: Scaling) -> None:
    """Compare the calibrated graph with NumPy, on noise."""
    sessions = [onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]) for model in (before, after)]
    size = sessions[0].get_inputs()[0].shape[1]
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    own, calibrated = (session.run(["probs"], {"images": images})[0] for session in sessions)
    gap = float(np.abs(scaling.apply(own) - calibrated).max())
    if not gap <= _TOLERANCE:
        raise ModelError(
            f"{target}: not written, its probabilities differ from what was fitted by up to {gap:.2g}; report this "
            "with the version of onnxruntime"
        )
