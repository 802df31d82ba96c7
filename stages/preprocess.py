"""Stage `preprocess`: resize, pack into arrays, split Training/ into train and val; Validation/ is the test set.

    dvc repro preprocess                               seconds; 24,000 images take 8 s on 2 cores

Reads data/raw.zip, the manifest, `preprocess` and `verify.max_pixels`; writes data/processed/ (uint8 arrays, labels,
an index a split, channel statistics and histograms of train), metrics/preprocess.json and metrics/figures/preprocess/.
Memory does not grow with the data set: pictures are written one by one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gender_classifier import plots
from gender_classifier.dataset import (
    ChannelSums,
    DatasetInfo,
    open_split,
    write_images,
    write_index,
    write_info,
    write_labels,
)
from gender_classifier.files import write_json
from gender_classifier.images import to_array
from gender_classifier.layout import CLASSES, RAW_SPLITS, SPLITS, Layout
from gender_classifier.monitoring import (
    PIXEL_STATISTICS,
    SIZE_STATISTICS,
    measure_pixels,
    start_histogram,
    to_jsonable,
)
from gender_classifier.parallel import map_members
from gender_classifier.params import Params, PreprocessParams
from gender_classifier.splits import assign_val
from gender_classifier.stage import run_stage
from gender_classifier.tracking import short_digest, track
from gender_classifier.verification import Record, read_manifest

Pictures = Iterator[NDArray[np.uint8]]

_BLOCK = 256  # images measured at a time


def main(layout: Layout, params: Params) -> None:
    """Write the arrays of the three splits and what training must know of them."""
    own = params.preprocess
    with track("preprocess", layout.root, params=asdict(own), data=True) as run:
        splits = _split(read_manifest(layout.manifest_path), own)
        sums = ChannelSums()
        with tqdm(total=sum(map(len, splits.values())), desc="preprocess", unit="img", disable=None) as bar:
            for name, records in splits.items():
                images = _resize(layout, records, own.image_size, params.verify.max_pixels)
                counted = _count(images, bar, sums if name == "train" else None)
                write_images(layout.images_path(name), counted, len(records), own.image_size)
                write_labels(layout.labels_path(name), [CLASSES.index(record.label) for record in records])
                write_index(layout.index_path(name), ((one.member, one.label, one.sha256) for one in records))
        digest = _hash_file(layout.manifest_path)
        split_digests = {name: _hash_file(layout.index_path(name)) for name in splits}
        write_info(
            layout.dataset_path, DatasetInfo(CLASSES, own.image_size, sums.mean(), sums.std(), digest, split_digests)
        )
        _write_reference(layout, splits["train"])
        metrics = {f"num_{name}": len(records) for name, records in splits.items()}
        write_json(layout.preprocess_report_path, metrics)
        balance = {name: {label: Counter(one.label for one in records)[label] for label in CLASSES}
                   for name, records in splits.items()}  # fmt: skip
        plots.save_figure(plots.split_balance(balance), layout.figures_dir("preprocess") / "split_balance.png")
        run.log_metrics(metrics)
        run.set_tags({"data.digest": short_digest(digest)})
        run.log_artifact(layout.dataset_path)
        run.log_artifact(layout.figures_dir("preprocess"))
    print("preprocess: " + ", ".join(f"{len(records):,} {name}" for name, records in splits.items()))


def _write_reference(layout: Layout, records: Sequence[Record]) -> None:
    """Keep how train's pictures are distributed, for ``gender-classifier monitor``; read back a block at a time."""
    reference = {name: start_histogram(name, "train") for name in (*SIZE_STATISTICS, *PIXEL_STATISTICS)}
    reference["width"].add([record.width for record in records])
    reference["height"].add([record.height for record in records])
    images = open_split(layout.images_path("train"), layout.labels_path("train")).images
    for start in range(0, len(images), _BLOCK):
        for name, values in measure_pixels(images[start : start + _BLOCK]).items():
            reference[name].add(values)
    write_json(layout.reference_path, to_jsonable(reference))


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _split(records: Sequence[Record], own: PreprocessParams) -> dict[str, list[Record]]:
    fit = [record for record in records if record.status == "ok"]
    training = [record for record in fit if record.split == RAW_SPLITS[0]]
    is_val = assign_val(
        [one.member for one in training],
        [one.label for one in training],
        [one.duplicate_group for one in training],
        val_fraction=own.val_fraction,
        seed=own.split_seed,
    )
    parts = (
        [record for record, held_out in zip(training, is_val, strict=True) if not held_out],
        [record for record, held_out in zip(training, is_val, strict=True) if held_out],
        [record for record in fit if record.split == RAW_SPLITS[1]],
    )
    return dict(zip(SPLITS, parts, strict=True))


def _resize(layout: Layout, records: Sequence[Record], size: int, max_pixels: int) -> Pictures:
    pack = partial(_pack, size=size, max_pixels=max_pixels)
    return map_members(layout.raw_archive_path, [record.member for record in records], pack)


def _pack(_: str, data: bytes, *, size: int, max_pixels: int) -> NDArray[np.uint8]:
    return to_array(data, size, max_pixels=max_pixels)


def _count(images: Pictures, bar: tqdm[Any], sums: ChannelSums | None) -> Pictures:
    for image in images:
        if sums is not None:
            sums.add(image)
        bar.update()
        yield image


if __name__ == "__main__":
    run_stage("preprocess", main, __doc__)
