"""Read the labelled sets of ``evaluate.extra`` in batches, and measure them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.file_names import describe_value, find_other_format, list_first
from gender_classifier.data.images import to_array
from gender_classifier.data.labelled_files import LabelledImage, LabelledSource, open_source
from gender_classifier.data.layouts.class_folders import Rules
from gender_classifier.errors import ArchiveError, DataError, ImageError
from gender_classifier.metrics.scores import Report, evaluate
from gender_classifier.metrics.tables import format_prediction, prediction_columns, tabulate_confusion

MAX_UNREADABLE = 0.05
"""Share of a set's images that may be unreadable; with more, its metrics would not represent the set."""

_BATCH = 256  # images in memory at a time


def open_labelled_set(name: str, path: str, classes: Sequence[str]) -> LabelledSource:
    """Open the set ``evaluate.extra.<name>``, any labelled source: folder, zip or CSV.

    Splits are optional. Folders and labels may have the usual names of the classes, such as ``Men`` for ``male``. An
    image under any other name is refused, so that none is overlooked. One that cannot be read, such as a link to
    nothing, is counted with the reason when it is read.

    Raises:
        SourceError: there is no such set, a folder in it cannot be listed, or it is laid out otherwise.
        ArchiveError: it is no whole zip.
    """
    rules = Rules(
        name=f"evaluate.extra.{name}",
        classes={label: (label,) for label in classes},
        fixed=True,
        refuses_strays=True,
        refuses_unreadable=False,
        if_missing="check the path in params.yaml, or take the set out",
    )
    return open_source(path, rules)


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
    labelled: LabelledSource, reading: Reading, *, size: int, max_pixels: int, seen: Mapping[str, str]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Decode a set batch by batch, and record each image in ``reading``.

    Args:
        labelled: the set.
        reading: empty.
        size: S, px.
        max_pixels: larger images are unreadable.
        seen: SHA-256 of each file of train and val to its split; these images are not scored.

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
            return "ok", sha256, to_array(data, size, max_pixels=max_pixels)
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


@dataclass(frozen=True)
class ScoredSet:
    """Scores of a model on a set.

    Attributes:
        labelled: the set.
        reading: outcome of reading it.
        rows: places of the scored images in the set, int64 (N,).
        labels: of these, int64 (N,).
        report: scores of these.
    """

    labelled: LabelledSource
    reading: Reading
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    report: Report


def score_set(
    labelled: LabelledSource,
    predict: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
    classes: Sequence[str],
    *,
    size: int,
    max_pixels: int,
    seen: Mapping[str, str],
    num_bins: int,
    on_images: Callable[[int], object] = lambda _: None,
) -> ScoredSet:
    """Measure a model on a set.

    Args:
        labelled: the open set.
        predict: uint8 (N, S, S, 3) to calibrated logits (N, C).
        classes: C names.
        size: S, px.
        max_pixels: larger images are unreadable.
        seen: as in :func:`read_batches`.
        num_bins: of the calibration error.
        on_images: called with the number of images done since the last call.

    Raises:
        DataError: too many images are unreadable, or no image can be scored.
    """
    reading, done = Reading(), 0
    rows, logits = [], []
    for places, pixels in read_batches(labelled, reading, size=size, max_pixels=max_pixels, seen=seen):
        rows.append(places)
        logits.append(predict(pixels))
        on_images(len(reading.status) - done)
        done = len(reading.status)
    check_reading(labelled, reading)
    scored = np.concatenate(rows)
    labels = np.array([labelled.images[row].label for row in scored], dtype=np.int64)
    try:
        report = evaluate(np.concatenate(logits), labels, classes=classes, num_bins=num_bins, complete=False)
    except DataError as error:
        raise DataError(f"{labelled.name}: {error}") from None
    return ScoredSet(labelled, reading, scored, labels, report)


def describe_set(scored: ScoredSet, path: str, classes: Sequence[str]) -> dict[str, Any]:
    """Return the report of a set: path, digest, counts, metrics and confusion matrix."""
    statuses = scored.reading.count()
    return {
        "path": describe_value(path),
        "digest": scored.reading.digest,
        "num_images": len(scored.labelled.images),
        "num_scored": statuses.get("ok", 0),
        "left_out": {status: count for status, count in statuses.items() if status != "ok"},
        "ignored": scored.labelled.ignored,
        "columns_left_out": list(scored.labelled.left_out),
        "metrics": scored.report.metrics,
        "confusion": tabulate_confusion(scored.report.confusion, classes),
    }


def extra_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of :func:`list_predictions`."""
    return ["path", "status", *prediction_columns(classes)]


def list_predictions(scored: ScoredSet, classes: Sequence[str]) -> Iterator[list[object]]:
    """Yield one row per image; images left out have no prediction."""
    places = {int(row): place for place, row in enumerate(scored.rows)}
    for row, (image, status) in enumerate(zip(scored.labelled.images, scored.reading.status, strict=True)):
        cells: list[object] = [""] * (2 + len(classes))
        if row in places:
            place = places[row]
            cells = format_prediction(image.label, int(scored.report.preds[place]), scored.report.probs[place], classes)
        yield [image.name, status, classes[image.label], *cells]
