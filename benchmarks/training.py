"""Training speed against the old loop: images/s, and the time to the old loop's best accuracy.

    dvc repro preprocess                                        (set `source` to the data to measure on)
    python benchmarks/training.py --old-epochs 10 --epochs 4    about 8 minutes on 2 cores with 18,000 images
    python benchmarks/training.py --precision fp32              without bf16 on a processor that supports it

The old loop is that of the notebook that this project replaces: Pillow and torchvision's transforms decode inside the
loop, batches of 16, fp32, Adam at its default rate, no normalisation, no augmentation. Ours is `params.yaml` except for
`precision` and `epochs`, which the learning-rate schedule spans. Both start from scratch and see the same training
images. They are scored on the test images after each epoch, which is not timed and chooses nothing.

Epochs of both alternate, because the speed of a shared machine varies over minutes. The ratio of the images/s is the
median over the rounds in which both trained.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from old_loop import build_decoder
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import keep_freed_memory
from gender_classifier.data.archive import Archive
from gender_classifier.data.dataset import PackedSplit, open_split, read_index, read_info
from gender_classifier.model.inference import compute_logits, to_unit
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.pipeline.params import load_params
from gender_classifier.train.devices import cpu_multiplies_bf16, find_precision
from gender_classifier.train.trainer import Trainer

Curve = list[tuple[float, float]]  # seconds of training so far, accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old-epochs", type=int, default=20, help="of the old loop (default: 20)")
    parser.add_argument("--epochs", type=int, default=4, help="of ours (default: 4)")
    parser.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of ours; the old loop is fp32"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    layout = Layout(Path.cwd())
    train, test = (open_split(layout.images_path(name), layout.labels_path(name)) for name in ("train", "test"))
    keep_freed_memory()  # as the stage does, here for both
    precision = find_precision(options.precision, torch.device("cpu"))
    old: Curve = []
    ours: Curve = []
    curves = (
        train_old_loop(layout, train, test, options.old_epochs),
        train_ours(layout, train, test, options.epochs, precision),
    )
    for old_epoch, our_epoch in zip_longest(*curves):
        old += [old_epoch] if old_epoch else []
        ours += [our_epoch] if our_epoch else []
    target = max(accuracy for _, accuracy in old)
    old_time = next(seconds for seconds, accuracy in old if accuracy >= target)
    our_time = next((seconds for seconds, accuracy in ours if accuracy >= target), None)
    # images/s of each epoch
    old_speeds, our_speeds = (len(train.images) / np.diff([0.0, *(end for end, _ in curve)]) for curve in (old, ours))
    rounds = min(len(old), len(ours))
    ratios = our_speeds[:rounds] / old_speeds[:rounds]
    flops = count_flops(train.images.shape[1])
    peaks = measure_peaks()
    found = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "train_images": len(train.images),
        "precision": precision,
        "old_images_per_second": float(np.median(old_speeds)),
        "our_images_per_second": float(np.median(our_speeds)),
        "speed_ratio": float(np.median(ratios)),
        "speed_ratios": [round(float(ratio), 2) for ratio in ratios],
        "old_best_accuracy": target,
        "old_seconds_to_best": old_time,
        "our_seconds_to_the_same": our_time,
        "time_ratio": old_time / our_time if our_time else None,
        "flops_per_image": flops,
        "matrix_product_flops": peaks,
        "old_share_of_fp32_product": float(np.median(old_speeds)) * flops / peaks["fp32"],
        "old_curve": old,
        "our_curve": ours,
    }
    if precision in peaks:
        found[f"our_share_of_{precision}_product"] = float(np.median(our_speeds)) * flops / peaks[precision]
    for key, value in found.items():
        print(f"{key:32} {value:.4g}" if isinstance(value, float) else f"{key:32} {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def train_old_loop(layout: Layout, train: PackedSplit, test: PackedSplit, epochs: int) -> Iterator[tuple[float, float]]:
    members, size = read_index(layout.index_path("train")), train.images.shape[1]
    torch.manual_seed(0)
    model = build_model("linear", 2, size)
    optimizer = torch.optim.Adam(model.parameters())
    seconds = 0.0
    with Archive(layout.raw_archive_path) as archive:
        decode = build_decoder(archive, size)
        for epoch in range(epochs):
            model.train()
            began = time.perf_counter()
            batches = np.array_split(np.random.default_rng(epoch).permutation(len(members)), len(members) // 16)
            for rows in tqdm(batches, desc=f"old loop, epoch {epoch + 1}", disable=None):
                loss = F.cross_entropy(
                    model(decode([members[row] for row in rows])), torch.from_numpy(train.labels[rows])
                )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                loss.item()
            seconds += time.perf_counter() - began
            print(f"old loop, epoch {epoch + 1}: {seconds:.1f} s", flush=True)
            plain = ModelSpec("linear", ("female", "male"), size, (0.0,) * 3, (1.0,) * 3)
            yield seconds, score(compute_logits(model, plain, test.images), test.labels)


def train_ours(
    layout: Layout, train: PackedSplit, test: PackedSplit, epochs: int, precision: str
) -> Iterator[tuple[float, float]]:
    params = replace(load_params(layout.params_path).train, epochs=epochs, precision=precision)  # type: ignore[arg-type]
    info = read_info(layout.dataset_path)
    spec = ModelSpec("linear", info.classes, info.image_size, info.channel_mean, info.channel_std)
    torch.manual_seed(params.seed)
    val = PackedSplit(train.images[:1], train.labels[:1])  # one image: scoring must not be timed
    trainer = Trainer(build_model("linear", 2, info.image_size), spec, train, val, params)
    seconds = 0.0
    records = trainer.epochs()
    for epoch in range(epochs):
        began = time.perf_counter()
        next(records)
        seconds += time.perf_counter() - began
        accuracy = score(compute_logits(trainer.averaged, spec, test.images), test.labels)
        print(f"ours, epoch {epoch + 1}: {seconds:.1f} s, {accuracy:.4f}", flush=True)
        yield seconds, accuracy


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def count_flops(size: int) -> float:
    """Count the floating-point operations of one image, forward and backward."""
    model = build_model("linear", 2, size)
    images = to_unit(torch.zeros(16, size, size, 3, dtype=torch.uint8))
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / len(images)


def measure_peaks() -> dict[str, float]:
    """Measure the FLOP/s of each precision, except one that the processor emulates, which would take minutes."""
    peaks = {"fp32": measure_peak(torch.float32)}
    if cpu_multiplies_bf16():
        peaks["bf16"] = measure_peak(torch.bfloat16)
    else:
        print("bf16: not measured, because this processor emulates it", flush=True)
    return peaks


def measure_peak(kind: torch.dtype, side: int = 2048) -> float:
    """Measure the FLOP/s of a ``side`` x ``side`` matrix product: the best of ten."""
    left, right = torch.randn(side, side).to(kind), torch.randn(side, side).to(kind)

    def run() -> float:
        began = time.perf_counter()
        torch.mm(left, right)
        return time.perf_counter() - began

    return 2 * side**3 / repeat(run, 10)


def repeat(function: Callable[[], float], times: int) -> float:
    function()
    return min(function() for _ in range(times))


if __name__ == "__main__":
    main()
