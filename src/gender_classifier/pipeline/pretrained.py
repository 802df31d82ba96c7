"""Make the model that the package ships out of the results of the last `dvc repro` or `dvc exp run`.

    make pretrained SOURCE=/path/to/faces.zip            trains first, with the Makefile's recipe
    python -m gender_classifier.pipeline.pretrained --data "where the images come from"

Reads params.yaml, models/, data/processed/ and metrics/. Writes three files into the package: model.onnx (int8),
model.safetensors (fp16, for `train.weights: pretrained`), and model_card.md with the figures of the int8 file.
"""

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor

from gender_classifier.common.artifacts import Artifact
from gender_classifier.common.paths import PRETRAINED_DIR, Layout, find_checkout
from gender_classifier.common.schema import flatten
from gender_classifier.common.terminal import complain
from gender_classifier.data.file_names import describe_value
from gender_classifier.data.names import KAGGLE
from gender_classifier.errors import GenderClassifierError, ModelError
from gender_classifier.evaluate.export import compute_outputs, compute_probs, describe_model
from gender_classifier.evaluate.inputs import Inputs, load_inputs
from gender_classifier.evaluate.markdown import code_span, render_template
from gender_classifier.evaluate.measure import Evaluation
from gender_classifier.evaluate.measured import MeasuredSet, list_measured
from gender_classifier.evaluate.model_card import describe_bias, describe_limits, tabulate_measured
from gender_classifier.evaluate.robustness import measure_robustness, summarize
from gender_classifier.evaluate.unfamiliar.shares import Scorer, describe_unfamiliar, list_rows, measure_unfamiliar
from gender_classifier.metrics.corruptions import choose_images
from gender_classifier.metrics.scores import evaluate
from gender_classifier.model.metadata import THRESHOLD_KEY
from gender_classifier.model.model_file import describe_network, pack_model
from gender_classifier.pipeline.params import Params, load_params
from gender_classifier.pipeline.publish import publish
from gender_classifier.predict.quantization import quantize_onnx

_CALIBRATION = 256  # images of val, which the weights have not seen


@dataclass(frozen=True)
class Shipped:
    """Figures of the int8 file; ``agreement`` is the fraction of test images that the fp32 file calls the same."""

    evaluation: Evaluation
    measured: list[MeasuredSet]
    agreement: float


def write_pretrained(layout: Layout, params: Params, data: str, target_dir: Path) -> Shipped:
    """Quantize and measure the workspace's model, and write the three files, each atomically.

    Args:
        layout: of the checkout.
        params: that the workspace's results were made with.
        data: name and origin of the data set, for the card.
        target_dir: folder to write to.

    Raises:
        GenderClassifierError: a result is missing or damaged, or a weight exceeds the range of float16.
    """
    made_with = dict(flatten({"preprocess": params.preprocess, "train": params.train}))
    inputs = load_inputs(layout, params.ingest.source, made_with)
    weights = pack_model(_halve(inputs.model.state_dict()), inputs.spec)
    calibration = np.asarray(inputs.val.images[choose_images(inputs.val.labels, _CALIBRATION)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_onnx(layout.onnx_path, path, calibration)
        shipped = measure_shipped(path, layout.onnx_path, inputs, params)
        model = onnx.load(path)
    described = describe_model(inputs, shipped.evaluation, shipped.measured, params.verify.min_side)
    described["limits"] = _describe_limits(inputs)
    entries = {entry.key: entry.value for entry in model.metadata_props} | described
    onnx.helper.set_model_props(model, dict(sorted(entries.items())))
    files = {"model.onnx": model.SerializeToString(deterministic=True), "model.safetensors": weights}
    # The card comes last: it describes files that are there.
    contents = {**files, "model_card.md": write_card(inputs, shipped, files, data)}
    publish(target_dir, [Artifact(name, content) for name, content in contents.items()])
    return shipped


def measure_shipped(path: Path, original: Path, inputs: Inputs, params: Params) -> Shipped:
    """Measure the ONNX file at ``path`` on test, clean and corrupted, and its agreement with ``original``."""
    classes, test = inputs.spec.classes, inputs.test
    probs, expected, val_probs = (
        compute_probs(file, split.images) for file, split in ((path, test), (original, test), (path, inputs.val))
    )
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    # The softmax of their logarithms are the probabilities themselves.
    logits = np.log(np.maximum(probs, np.finfo(np.float32).tiny))
    report = evaluate(logits, test.labels, classes=classes, num_bins=params.evaluate.ece_bins)
    chosen = choose_images(test.labels, params.evaluate.robustness_images)
    rows = list(
        measure_robustness(
            lambda pixels: compute_probs(path, pixels),
            np.asarray(test.images[chosen]),
            test.labels[chosen],
            probs[chosen],
        )
        if len(chosen)
        else ()
    )
    report.metrics.update(summarize(rows))
    unfamiliar = None
    if THRESHOLD_KEY in entries:
        scorer = Scorer(lambda pixels: compute_outputs(path, pixels)[1], float(entries[THRESHOLD_KEY]))
        unfamiliar = measure_unfamiliar(scorer, test, inputs.val)
        report.metrics.update(unfamiliar.metrics)
    evaluation = Evaluation(report, val_probs.astype(np.float64), rows, suspects=[], unfamiliar=unfamiliar)
    agreement = float((probs.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return Shipped(evaluation, list_measured(evaluation, {}, classes), agreement)


def write_card(inputs: Inputs, shipped: Shipped, files: Mapping[str, bytes], data: str) -> str:
    """Return the card: figures, limits, terms, data, params, and the SHA-256 of each of ``files``."""
    params = sorted(inputs.params.items(), key=lambda item: "." in item[0])  # top-level keys first
    return render_template(
        __package__,
        "pretrained.md.j2",
        network=describe_network(inputs.spec),
        spec=inputs.spec,
        bias=describe_bias(inputs.spec),
        classes=[code_span(name) for name in inputs.spec.classes],
        files={
            name: (f"{len(content) / 1e6:.2f} MB", hashlib.sha256(content).hexdigest())
            for name, content in files.items()
        },
        worst=shipped.measured[0],
        measured=tabulate_measured(shipped.measured, inputs.spec.classes),
        unfamiliar=describe_unfamiliar(list_rows(shipped.evaluation.unfamiliar, {})),
        metrics=shipped.evaluation.report.metrics,
        agreement=shipped.agreement,
        limits=_describe_limits(inputs),
        data=data,
        source=code_span(inputs.source),
        info=inputs.info,
        counts=[f"{len(members):,} {split}" for split, members in inputs.members.items()],
        best=inputs.best,
        params=[(key, describe_value(value)) for key, value in params],
    )


def _describe_limits(inputs: Inputs) -> str:
    # Its data are an extract of that set, under whatever name.
    return describe_limits(KAGGLE, inputs.spec.classes)


def _halve(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with floats in half precision.

    Raises:
        ModelError: a value exceeds its range.
    """
    halved = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in halved.items():
        if not value.isfinite().all():
            raise ModelError(f"tensor `{name}`: a value exceeds 65,504, the range of float16; train with another seed")
    return halved


def main() -> int:
    """Write the files into the package; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="TEXT", help="name and origin of the data set, for the card")
    data = parser.parse_args().data
    layout = Layout(find_checkout(Path.cwd()) or Path.cwd())
    try:
        shipped = write_pretrained(layout, load_params(layout.params_path), data, PRETRAINED_DIR)
    except GenderClassifierError as error:
        complain("pretrained", error)
        return 1
    metrics = shipped.evaluation.report.metrics
    print(
        f"pretrained: test accuracy {metrics['accuracy']:.4f} (95 % interval {metrics['accuracy_low']:.4f} to "
        f"{metrics['accuracy_high']:.4f}), {shipped.agreement:.2%} of the predictions as in fp32; see "
        f"{PRETRAINED_DIR / 'model_card.md'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
