"""Speed and size of networks: training against AlexNet, prediction with the exported file in fp32 and int8.

    dvc repro preprocess                                      (set `source` to the data to measure on)
    python benchmarks/networks.py resnet10 resnet18 resnet18:small      5 minutes on 2 cores

A name may carry a stem after a colon. Each network trains by `params.yaml` on the same images for a few short epochs.
Epochs of all networks alternate, since a shared machine varies; the ratio to AlexNet is the median over the
rounds after the first. Predictions are of decoded images, also in turns. The weights are random: speed and size do not
depend on them, but the share of images that test-time augmentation runs twice does, so that it is off here.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import keep_freed_memory
from gender_classifier.data.dataset import PackedSplit, open_split, read_info
from gender_classifier.evaluate.export import export_onnx
from gender_classifier.model.network import count_parameters
from gender_classifier.model.weights import load_weights
from gender_classifier.pipeline.params import load_params
from gender_classifier.predict.predictor import BATCH_SIZE, Predictor
from gender_classifier.predict.quantization import quantize_onnx
from gender_classifier.train.session import build_initial
from gender_classifier.train.trainer import Trainer

CALIBRATION = 256  # images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NETWORK[:STEM]", help="networks to compare with AlexNet")
    parser.add_argument("--images", type=int, default=2560, help="per epoch and per prediction (default: 2560)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs and predictions of each (default: 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    keep_freed_memory()  # as the stage does
    layout = Layout(Path.cwd())
    train = open_split(layout.images_path("train"), layout.labels_path("train"))
    part = PackedSplit(np.asarray(train.images[: options.images]), np.asarray(train.labels[: options.images]))
    rows, work = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(("alexnet", *options.names)):
            rows[name], jobs = prepare(layout, name, part, Path(folder))
            work |= {(name, kind): job for kind, job in jobs.items()}
        for (name, kind), seconds in take_turns(work, options.rounds).items():
            ratios = [time / base for time, base in zip(seconds, rows["alexnet"].get(kind, seconds), strict=True)]
            rows[name][kind] = seconds
            rows[name] |= {
                f"{kind}_images_per_second": len(part.images) / float(np.median(seconds)),
                f"{kind}_time_ratio": float(np.median(ratios)),
            }
    for name, row in rows.items():
        print(name, *(f"{key} {value:,.4g}" for key, value in row.items() if isinstance(value, int | float)), sep="  ")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def prepare(
    layout: Layout, name: str, part: PackedSplit, folder: Path
) -> tuple[dict[str, object], dict[str, Callable[[], object]]]:
    """Return the sizes of a network, and what is to be timed: one epoch, and one pass of each exported file."""
    network, _, stem = name.partition(":")
    params = load_params(layout.params_path).train
    params = replace(params, network=network, stem=stem or "original", tta_margin=0.0, epochs=100)  # type: ignore[arg-type]
    model, spec = build_initial(params, read_info(layout.dataset_path), load_weights("none", Path.cwd(), network))
    files = {"fp32": folder / f"{network}-{stem}-fp32.onnx", "int8": folder / f"{network}-{stem}-int8.onnx"}
    export_onnx(files["fp32"], model, spec, {})
    quantize_onnx(files["fp32"], files["int8"], part.images[:CALIBRATION])
    sizes: dict[str, object] = {"parameters": count_parameters(model)}
    sizes |= {f"{kind}_bytes": path.stat().st_size for kind, path in files.items()}
    val = PackedSplit(part.images[:2], np.array([0, 1]))  # validation is not measured
    epochs = Trainer(model, spec, part, val, params).epochs()
    predictors = {kind: Predictor(path) for kind, path in files.items()}
    jobs: dict[str, Callable[[], object]] = {"train": lambda: next(epochs)}
    jobs |= {kind: lambda found=found: predict(found, part) for kind, found in predictors.items()}  # type: ignore[misc]
    return sizes, jobs


def predict(predictor: Predictor, part: PackedSplit) -> None:
    for start in range(0, len(part.images), BATCH_SIZE):
        predictor.compute_probs(part.images[start : start + BATCH_SIZE])


def take_turns(work: dict[tuple[str, str], Callable[[], object]], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Run everything in turns; return the seconds of each run but the first, which warms up."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in work}

    def one_round() -> Iterator[None]:
        for key, job in work.items():
            began = time.perf_counter()
            job()
            seconds[key].append(time.perf_counter() - began)
            yield

    for number in range(rounds + 1):
        for _ in tqdm(one_round(), total=len(work), desc=f"round {number} of {rounds}", disable=None):
            pass
    return {key: values[1:] for key, values in seconds.items()}


if __name__ == "__main__":
    main()
