"""Decode a labelled source batch by batch, and record what cannot be read."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.file_names import find_other_format, list_first
from gender_classifier.data.images import Crop, to_array
from gender_classifier.data.labelled_files import LabelledImage, LabelledSource
from gender_classifier.errors import ArchiveError, DataError, ImageError

MAX_UNREADABLE = 0.05
"""Share of a set's images that may be unreadable; with more, its metrics would not represent the set."""

_BATCH = 256  # images in memory at a time


@dataclass
class Reading:
    """Outcome of reading a set, filled while it is read.

    Attributes:
        status: of each image: ``ok``, ``seen in train``, ``seen in val``, or why it cannot be read.
        digest: SHA-256 over names, labels, attributes and contents, complete after the last batch.
    """

    status: list[str] = field(default_factory=list)
    digest: str = ""

    def count(self) -> dict[str, int]:
        """Return the number of images with each status, sorted by status."""
        return dict(sorted(Counter(self.status).items()))


def read_batches(
    labelled: LabelledSource,
    reading: Reading,
    *,
    size: int,
    max_pixels: int,
    seen: Mapping[str, str] = MappingProxyType({}),
    min_side: int = 1,
    crop: Crop | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Decode a set batch by batch, and record each image in ``reading``.

    Args:
        labelled: the set.
        reading: empty.
        size: S, px.
        max_pixels: larger images are unreadable.
        seen: SHA-256 of each file of train and val to its split; these images are not scored.
        min_side: px; images with a shorter side are unreadable.
        crop: which images lose their sides.

    Yields:
        Images with the status ``ok``: their places in the set, int64 (N,), and pixels, uint8 (N, S, S, 3).
    """

    def prepare(image: LabelledImage) -> tuple[str, str, NDArray[np.uint8] | None]:
        try:
            data = image.read()
        except (OSError, ArchiveError):
            return "missing or damaged file", "", None
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in seen:
            return f"seen in {seen[sha256]}", sha256, None
        if find_other_format(image.name, data):
            return "not_an_image", sha256, None
        try:
            return "ok", sha256, to_array(data, size, max_pixels=max_pixels, min_side=min_side, crop=crop)
        except ImageError as error:
            return error.reason, sha256, None

    digest = hashlib.sha256()
    waiting = iter(labelled.images)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(waiting, _BATCH)):
            rows, batch = [], []
            for image, (status, sha256, pixels) in zip(chunk, pool.map(prepare, chunk), strict=True):
                digest.update("\0".join([image.name, str(image.label), *image.attributes, sha256, "\n"]).encode())
                if pixels is not None:
                    rows.append(len(reading.status))
                    batch.append(pixels)
                reading.status.append(status)
            if batch:
                yield np.array(rows, dtype=np.int64), np.stack(batch)
    reading.digest = digest.hexdigest()


def check_reading(labelled: LabelledSource, reading: Reading) -> None:
    """Refuse a set with too many unreadable images, or with none left to score.

    Raises:
        DataError: gives the counts, and the first images that cannot be read.
    """
    unreadable = sum(map(_is_unreadable, reading.status))
    total, counts = len(labelled.images), reading.count()
    listed = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "ok")
    if unreadable > MAX_UNREADABLE * total:
        raise DataError(
            f"{labelled.name}: {unreadable} of {total} images cannot be read "
            f"({unreadable / total:.2%}), more than the tolerated {MAX_UNREADABLE:.0%}: {listed} ("
            f"{list_unreadable(labelled, reading)}); replace or remove them"
        )
    if not counts.get("ok"):
        raise DataError(
            f"{labelled.name}: none of its {total} images is left to score: {listed}; give images "
            "that the model was not trained on"
        )


def list_unreadable(labelled: LabelledSource, reading: Reading) -> str:
    """Return the names of the first unreadable images on one line; an empty text without any."""
    pairs = zip(labelled.images, reading.status, strict=True)
    return list_first(image.name for image, status in pairs if _is_unreadable(status))


def _is_unreadable(status: str) -> bool:
    return status != "ok" and not status.startswith("seen in ")
