"""Decode every image to its final size on all cores, and write the arrays of each split."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.files import hash_file
from gender_classifier.common.paths import Layout
from gender_classifier.common.progress import show_progress
from gender_classifier.data.archive import Archive
from gender_classifier.data.dataset import (
    DatasetInfo,
    measure_aspect,
    measure_channels,
    sum_channels,
    write_images,
    write_index,
    write_info,
    write_integers,
)
from gender_classifier.data.groups import number_groups
from gender_classifier.data.images import to_array
from gender_classifier.data.manifest import Record
from gender_classifier.data.parallel import map_members
from gender_classifier.metrics.histograms import measure_pixels

_AHEAD = 192 * 2**20  # most bytes of decoded images that wait to be written

Packed = tuple[NDArray[np.uint8], NDArray[np.int64], dict[str, float]]
"""Result of a worker: image uint8 (S, S, 3), sums of its channels, and the statistics that ``monitor`` compares."""

Splits = Mapping[str, Sequence[Record]]


@contextmanager
def pack_all(archive: Archive, splits: Splits, size: int, max_pixels: int) -> Iterator[Iterator[Packed]]:
    """Decode the images of all splits, in order; the workers start immediately and end with the context."""
    members = [record.member for records in splits.values() for record in records]
    pack = partial(_pack, size=size, max_pixels=max_pixels)
    with map_members(archive, members, pack, ahead=_AHEAD // (3 * size**2)) as packed:
        yield iter(show_progress(packed, total=len(members), name="preprocess"))


def write_splits(
    layout: Layout,
    splits: Splits,
    packed: Iterator[Packed],
    size: int,
    classes: Sequence[str],
    groups: Mapping[str, str],
    digest: str,
    corrections: Mapping[str, int],
) -> dict[str, list[float]]:
    """Write the arrays, labels and index of each split, the groups of train, and the description of the data set.

    Args:
        layout: gives the paths.
        splits: records of each split, in the order of ``packed``.
        packed: from :func:`pack_all`.
        size: S, px.
        classes: names in label order.
        groups: member to the name of its group, ``""`` for none.
        digest: SHA-256 of the manifest.
        corrections: number of corrected images of each split, without zeros.

    Returns:
        Brightness, contrast, width (px) and height (px) of each training image.
    """
    sums, statistics = np.zeros((3, 3), np.int64), defaultdict[str, list[float]](list)

    def learn(name: str, found: Iterator[Packed]) -> Iterator[NDArray[np.uint8]]:
        for image, channels, measured in found:
            if name == "train":
                sums[:] += channels
                for statistic, value in measured.items():
                    statistics[statistic].append(value)
            yield image

    for name, records in splits.items():
        write_images(layout.images_path(name), learn(name, islice(packed, len(records))), len(records), size)
        write_integers(layout.labels_path(name), [classes.index(record.label) for record in records])
        write_index(layout.index_path(name), ((record.member, record.label, record.sha256) for record in records))
    write_integers(layout.groups_path, number_groups([groups[record.member] for record in splits["train"]]))
    split_digests = {name: hash_file(layout.index_path(name)) for name in splits}
    statistics["width"] = [record.width for record in splits["train"]]
    statistics["height"] = [record.height for record in splits["train"]]
    shape = measure_aspect(statistics["width"], statistics["height"])
    info = DatasetInfo(tuple(classes), size, *measure_channels(sums), digest, split_digests, corrections, *shape)
    write_info(layout.dataset_path, info)
    return dict(statistics)


def _pack(_: str, data: bytes, *, size: int, max_pixels: int) -> Packed:
    image = to_array(data, size, max_pixels=max_pixels)
    return image, sum_channels(image), {name: float(value) for name, (value,) in measure_pixels(image[None]).items()}
