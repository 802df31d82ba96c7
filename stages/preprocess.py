"""Stage `preprocess`: resize, pack into arrays, split Training/ into train and val; Validation/ is the test set.

    dvc repro preprocess                               seconds; 24,000 images take 9 s on 2 cores

Reads data/raw.zip, the manifest, `preprocess` and `verify.max_pixels`; writes data/processed/ (uint8 arrays, labels,
an index a split, channel statistics and histograms of train), metrics/preprocess.json and metrics/figures/preprocess/.
Pictures are written as they come, so that few are held at a time, however many there are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.files import hash_file, short_digest, write_json
from gender_classifier.common.paths import Layout
from gender_classifier.data.archive import Archive
from gender_classifier.data.dataset import (
    ChannelSums,
    DatasetInfo,
    sum_channels,
    write_images,
    write_index,
    write_info,
    write_labels,
)
from gender_classifier.data.images import to_array
from gender_classifier.data.names import CLASSES, RAW_SPLITS, SPLITS
from gender_classifier.data.parallel import map_members
from gender_classifier.metrics.histograms import (
    PIXEL_STATISTICS,
    SIZE_STATISTICS,
    measure_pixels,
    start_histogram,
    to_jsonable,
)
from gender_classifier.pipeline.params import Params
from gender_classifier.pipeline.stage import run_stage
from gender_classifier.preprocess.params import PreprocessParams
from gender_classifier.preprocess.splits import assign_val
from gender_classifier.verify.inspection import Record, read_manifest

if TYPE_CHECKING:
    from gender_classifier.track.run import TrackedRun


_AHEAD = 192 * 2**20  # bytes of pictures that may wait to be written

Packed = tuple[NDArray[np.uint8], tuple[int, list[int], list[int]], dict[str, float]]
"""What a worker hands over: a picture, its channels' sums, and what ``monitor`` compares."""


def main(layout: Layout, params: Params) -> None:
    """Write the arrays of the three splits and what training must know of them."""
    own = params.preprocess
    splits = _split(read_manifest(layout.manifest_path), own)
    members = [record.member for records in splits.values() for record in records]
    pack = partial(_pack, size=own.image_size, max_pixels=params.verify.max_pixels)
    ahead = _AHEAD // (3 * own.image_size**2)
    with Archive(layout.raw_archive_path) as archive, map_members(archive, members, pack, ahead=ahead) as packed:
        # Here, and below: importing MLflow and Matplotlib takes two seconds, in which the workers decode.
        from gender_classifier.track.run import track

        with track("preprocess", layout.root, params=asdict(own), data=True) as run:
            _write(layout, own, splits, packed, run)


def _write(
    layout: Layout,
    own: PreprocessParams,
    splits: Mapping[str, Sequence[Record]],
    packed: Iterator[Packed],
    run: TrackedRun,
) -> None:
    from gender_classifier.common.figures import save_figure
    from gender_classifier.preprocess.figures import split_balance

    sums, measured = ChannelSums(), defaultdict[str, list[float]](list)

    def learn(name: str, found: Iterator[Packed]) -> Iterator[NDArray[np.uint8]]:
        for image, channels, statistics in found:
            if name == "train":
                sums.add(*channels)
                for statistic, value in statistics.items():
                    measured[statistic].append(value)
            bar.update()
            yield image

    with tqdm(total=sum(map(len, splits.values())), desc="preprocess", unit="img", disable=None) as bar:
        for name, records in splits.items():
            images = learn(name, islice(packed, len(records)))
            write_images(layout.images_path(name), images, len(records), own.image_size)
            write_labels(layout.labels_path(name), [CLASSES.index(record.label) for record in records])
            write_index(layout.index_path(name), ((one.member, one.label, one.sha256) for one in records))
    digest = hash_file(layout.manifest_path)
    split_digests = {name: hash_file(layout.index_path(name)) for name in splits}
    write_info(
        layout.dataset_path, DatasetInfo(CLASSES, own.image_size, sums.mean(), sums.std(), digest, split_digests)
    )
    measured["width"] = [one.width for one in splits["train"]]
    measured["height"] = [one.height for one in splits["train"]]
    _write_reference(layout, measured)
    metrics = {f"num_{name}": len(records) for name, records in splits.items()}
    write_json(layout.preprocess_report_path, metrics)
    balance = {name: {label: Counter(one.label for one in records)[label] for label in CLASSES}
               for name, records in splits.items()}  # fmt: skip
    save_figure(split_balance(balance), layout.figures_dir("preprocess") / "split_balance.png")
    run.log_metrics(metrics)
    run.set_tags({"data.digest": short_digest(digest)})
    run.log_artifact(layout.dataset_path)
    run.log_artifact(layout.figures_dir("preprocess"))
    print("preprocess: " + ", ".join(f"{len(records):,} {name}" for name, records in splits.items()))


def _write_reference(layout: Layout, measured: Mapping[str, Sequence[float]]) -> None:
    """Keep how train's pictures are distributed, for ``gender-classifier monitor``."""
    reference = {name: start_histogram(name, "train") for name in (*SIZE_STATISTICS, *PIXEL_STATISTICS)}
    for name, histogram in reference.items():
        histogram.add(measured[name])
    write_json(layout.reference_path, to_jsonable(reference))


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


def _pack(_: str, data: bytes, *, size: int, max_pixels: int) -> Packed:
    image = to_array(data, size, max_pixels=max_pixels)
    return image, sum_channels(image), {name: float(one[0]) for name, one in measure_pixels(image[None]).items()}


if __name__ == "__main__":
    run_stage("preprocess", main, __doc__)
