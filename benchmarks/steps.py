"""Training speed, images/s, as the changes from the old loop to this project are made one after another.

    dvc repro preprocess                           (set `source` to the data to measure on)
    python benchmarks/steps.py                     4 minutes on 2 cores
    python benchmarks/steps.py --precision fp32    without bf16 on a processor that supports it
    python benchmarks/steps.py --profile           also list the operators that take most of the time

Each row includes all changes above it and is the median of alternating rounds. The last rows are ``params.yaml``
itself, the same with freed memory kept, and torch.compile in addition. The project does not use torch.compile: its row
shows the speed that it reaches, and the time to compile.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from old_loop import build_decoder
from torch.profiler import ProfilerActivity, profile

from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import keep_freed_memory
from gender_classifier.data.archive import Archive
from gender_classifier.data.dataset import PackedSplit, open_split, read_index, read_info
from gender_classifier.model.inference import to_unit
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.pipeline.params import load_params
from gender_classifier.train.cpu_convolution import use_cpu_convolutions
from gender_classifier.train.devices import find_precision
from gender_classifier.train.params import TrainParams
from gender_classifier.train.trainer import Trainer

Load = Callable[[NDArray[np.int64]], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4096, help="per row and round (default: 4096)")
    parser.add_argument("--rounds", type=int, default=3, help="of which each row is the median (default: 3)")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of this project")
    parser.add_argument("--profile", action="store_true", help="also list the operators that take most of the time")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    layout = Layout(Path.cwd())
    train = open_split(layout.images_path("train"), layout.labels_path("train"))
    members = read_index(layout.index_path("train"))
    precision = find_precision(options.precision, torch.device("cpu"))
    bf16 = precision == "bf16"

    def unpack(rows: NDArray[np.int64]) -> torch.Tensor:
        return to_unit(torch.from_numpy(np.asarray(train.images[rows])))

    params = replace(load_params(layout.params_path).train, precision=precision)  # type: ignore[arg-type]
    ours = partial(time_ours, layout, train, params, options.images)
    plain = partial(time_loop, train, unpack, options.images, params.batch_size)
    quick = partial(plain, fused=True, bf16=bf16)
    with Archive(layout.raw_archive_path) as archive:
        decode = build_decoder(archive, train.images.shape[1])
        changes: dict[str, Callable[[], float]] = {
            "old loop: decoding inside, batch 16, fp32": partial(
                time_loop, train, lambda rows: decode([members[row] for row in rows]), options.images
            ),
            "packed arrays": partial(time_loop, train, unpack, options.images),
            f"batch {params.batch_size}": plain,
            "fused optimizer": partial(plain, fused=True),
            **({"bf16": quick} if bf16 else {}),
            "channels last": partial(quick, channels_last=True),
            "CPU convolutions": partial(quick, channels_last=True, cpu_convolutions=True),
            "params.yaml: augmentation, mixup, EMA": ours,
        }
        speeds: dict[str, list[float]] = {name: [] for name in changes}
        for _ in range(options.rounds):  # alternating, because the speed of a shared machine varies over minutes
            for name, measure in changes.items():
                speeds[name].append(measure())
    keep_freed_memory()  # as in the stage; cannot be undone in a process
    speeds["freed memory kept"] = [ours() for _ in range(options.rounds)]
    began = time.perf_counter()
    speed = ours(compiled=True)
    compiling = time.perf_counter() - began - 2 * options.images / speed
    speeds[f"torch.compile ({compiling:.0f} s to compile)"] = [speed]
    rows = {name: float(np.median(found)) for name, found in speeds.items()}
    first = next(iter(rows.values()))
    for name, speed in rows.items():
        print(f"{name:44} {speed:7.0f} images/s  {speed / first:5.2f} times the old loop")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.profile:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            ours()
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


def draw_batches(count: int, images: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
    order = np.random.default_rng(0).permutation(count)[:images]
    return (order[start : start + batch_size] for start in range(0, len(order) - batch_size + 1, batch_size))


def time_loop(
    train: PackedSplit,
    load: Load,
    images: int,
    batch_size: int = 16,
    *,
    fused: bool = False,
    bf16: bool = False,
    channels_last: bool = False,
    cpu_convolutions: bool = False,
) -> float:
    """Return images/s of a plain training loop after a warm-up on an eighth of the images."""
    model = build_model("linear", 2, train.images.shape[1])
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if cpu_convolutions:
        use_cpu_convolutions(model)
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)

    def run(images: int) -> None:
        for rows in draw_batches(len(train.images), images, batch_size):
            batch = load(rows)
            batch = batch.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model(batch)
            loss = F.cross_entropy(logits.float(), torch.from_numpy(train.labels[rows]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()

    run(max(images // 8, batch_size))
    began = time.perf_counter()
    run(images)
    return images / (time.perf_counter() - began)


def time_ours(layout: Layout, train: PackedSplit, params: TrainParams, images: int, *, compiled: bool = False) -> float:
    """Return images/s of this project's second epoch over a random subset of ``images`` images."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train.images))[:images])
    part = PackedSplit(np.asarray(train.images[rows]), train.labels[rows])
    info = read_info(layout.dataset_path)
    spec = ModelSpec("linear", info.classes, info.image_size, info.channel_mean, info.channel_std)
    val = PackedSplit(part.images[:1], part.labels[:1])  # one image: validation is not measured
    trainer = Trainer(build_model("linear", 2, info.image_size), spec, part, val, replace(params, epochs=2))
    if compiled:
        trainer._network = torch.compile(trainer._network)  # type: ignore[assignment]
    records = trainer.epochs()
    next(records)
    began = time.perf_counter()
    next(records)
    return images / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
