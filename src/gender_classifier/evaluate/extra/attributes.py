"""Scores of labelled images by attribute: of those with each value of each column."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gender_classifier.metrics.scores import Report, balanced_interval, wilson_interval


@dataclass(frozen=True)
class ScoredImages:
    """Scores of a model on N images with A attributes, such as the test set or a further set.

    Attributes:
        labels: int64 (N,).
        report: scores of the images.
        attributes: A names.
        values: A values of each image.
    """

    labels: NDArray[np.int64]
    report: Report
    attributes: Sequence[str]
    values: Sequence[Sequence[str]]

    def encode(self, place: int) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """Return the K values of the attribute at ``place``, sorted, and each image's place among them, int64 (N,)."""
        column = np.array([row[place] or "(empty)" for row in self.values])
        values, codes = np.unique(column, return_inverse=True)
        return values, codes


@dataclass(frozen=True)
class AttributeRow:
    """Scores of the images with one value of one attribute, or with one of each of two.

    ``recalls`` has (n, recall, low, high) for each class; all but n are None without images. The balanced accuracy is
    None where a class has no image. All intervals are of 95 %.
    """

    attribute: str
    value: str
    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float | None
    balanced_accuracy_low: float | None
    balanced_accuracy_high: float | None
    recalls: tuple[tuple[int, float | None, float | None, float | None], ...]


def tabulate_attributes(images: ScoredImages) -> list[AttributeRow]:
    """Measure all images, then those with each value of each attribute."""
    table = [measure_group("all", "", *count_hits(images, np.zeros(len(images.labels), np.int64))[0])]
    for place, attribute in enumerate(images.attributes):
        values, groups = images.encode(place)
        counts = count_hits(images, groups)
        table += [measure_group(attribute, str(value), *count) for value, count in zip(values, counts, strict=True)]
    return table


def count_hits(images: ScoredImages, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each group and class, the images that are right and all images: int64 (G, 2, C).

    Args:
        images: N scored images.
        groups: of each image, int64 (N,), in [0, G).
    """
    counts = np.zeros((groups.max() + 1, 2, images.report.probs.shape[1]), dtype=np.int64)
    np.add.at(counts[:, 0], (groups, images.labels), images.report.preds == images.labels)
    np.add.at(counts[:, 1], (groups, images.labels), 1)
    return counts


def measure_group(attribute: str, value: str, hits: NDArray[np.int64], totals: NDArray[np.int64]) -> AttributeRow:
    """Return the row of a group with ``hits`` of ``totals`` images right in each class, int64 (C,)."""
    pairs = list(zip(hits.tolist(), totals.tolist(), strict=True))
    recalls = tuple(
        (total, hit / total, *wilson_interval(hit, total)) if total else (0, None, None, None) for hit, total in pairs
    )
    right, count = int(hits.sum()), int(totals.sum())
    balanced: tuple[float | None, float | None, float | None] = (None, None, None)
    if totals.all():
        balanced = (float((hits / totals).mean()), *balanced_interval(hits.tolist(), totals.tolist()))
    return AttributeRow(attribute, value, count, right / count, *wilson_interval(right, count), *balanced, recalls)


def attribute_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of :func:`flatten_row`."""
    per_class = [f"{key}_{name}{end}" for name in classes
                 for key, end in (("n", ""), ("recall", ""), ("recall", "_low"), ("recall", "_high"))]  # fmt: skip
    scores = [f"{key}{end}" for key in ("accuracy", "balanced_accuracy") for end in ("", "_low", "_high")]
    return ["attribute", "value", "n", *scores, *per_class]


def flatten_row(row: AttributeRow) -> list[object]:
    """Return the cells of a row; empty where a class has no image."""
    scores = (
        row.accuracy, row.accuracy_low, row.accuracy_high,
        row.balanced_accuracy, row.balanced_accuracy_low, row.balanced_accuracy_high,
    )  # fmt: skip
    cells = [row.attribute, row.value, row.n, *map(_round, scores)]
    for n, *figures in row.recalls:
        cells += [n, *map(_round, figures)]
    return cells


def _round(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
