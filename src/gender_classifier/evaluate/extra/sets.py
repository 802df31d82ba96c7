"""Measure a model on the labelled sets of ``evaluate.extra``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.file_names import describe_value
from gender_classifier.data.images import Crop
from gender_classifier.data.labelled_files import LabelledSource, open_source
from gender_classifier.data.labelled_pixels import Reading, check_reading, read_batches
from gender_classifier.data.layouts.class_folders import Rules
from gender_classifier.errors import DataError
from gender_classifier.evaluate.extra.attributes import ScoredImages
from gender_classifier.evaluate.extra.groups import AttributeReport, report_attributes
from gender_classifier.evaluate.unfamiliar.shares import Scorer
from gender_classifier.metrics.scores import Report, evaluate
from gender_classifier.metrics.tables import format_prediction, prediction_columns, tabulate_confusion


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


@dataclass(frozen=True)
class ScoredSet:
    """Scores of a model on a set.

    Attributes:
        labelled: the set.
        reading: outcome of reading it.
        rows: places of the scored images in the set, int64 (N,).
        labels: of these, int64 (N,).
        report: scores of these.
        unfamiliar: which of these are, bool (N,); None if the model cannot tell.
    """

    labelled: LabelledSource
    reading: Reading
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    report: Report
    unfamiliar: NDArray[np.bool_] | None = None

    @cached_property
    def by_attribute(self) -> AttributeReport:
        """The scores by attribute."""
        values = [self.labelled.images[row].attributes for row in self.rows]
        return report_attributes(ScoredImages(self.labels, self.report, self.labelled.attributes, values))


def score_set(
    labelled: LabelledSource,
    predict: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
    classes: Sequence[str],
    *,
    size: int,
    max_pixels: int,
    seen: Mapping[str, str],
    num_bins: int,
    scorer: Scorer | None = None,
    crop: Crop | None = None,
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
        scorer: tells unfamiliar images; None if the model cannot.
        crop: which images lose their sides, as in use.
        on_images: called with the number of images done since the last call.

    Raises:
        DataError: too many images are unreadable, or no image can be scored.
    """
    reading, done = Reading(), 0
    rows, logits, flags = [], [], []
    for places, pixels in read_batches(labelled, reading, size=size, max_pixels=max_pixels, seen=seen, crop=crop):
        rows.append(places)
        logits.append(predict(pixels))
        if scorer:
            flags.append(scorer.flag(pixels))
        on_images(len(reading.status) - done)
        done = len(reading.status)
    check_reading(labelled, reading)
    scored = np.concatenate(rows)
    labels = np.array([labelled.images[row].label for row in scored], dtype=np.int64)
    try:
        report = evaluate(np.concatenate(logits), labels, classes=classes, num_bins=num_bins, complete=False)
    except DataError as error:
        raise DataError(f"{labelled.name}: {error}") from None
    return ScoredSet(labelled, reading, scored, labels, report, np.concatenate(flags) if flags else None)


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
        "groups": scored.by_attribute.groups.describe(),
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
