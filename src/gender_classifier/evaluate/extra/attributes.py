"""Scores of a labelled set by attribute: of the images with each value of each column."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gender_classifier.evaluate.extra.sets import ScoredSet
from gender_classifier.metrics.scores import balanced_interval, wilson_interval


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


def tabulate_attributes(scored: ScoredSet) -> list[AttributeRow]:
    """Measure all images, then those with each value of each attribute."""
    table = [measure_group("all", "", *count_hits(scored, np.zeros(len(scored.rows), np.int64))[0])]
    for place, attribute in enumerate(scored.labelled.attributes):
        values, groups = np.unique(list_values(scored, place), return_inverse=True)
        counts = count_hits(scored, groups)
        table += [measure_group(attribute, str(value), *count) for value, count in zip(values, counts, strict=True)]
    return table


def list_values(scored: ScoredSet, place: int) -> NDArray[np.str_]:
    """Return the value of the attribute at ``place`` of each scored image, (N,)."""
    return np.array([scored.labelled.images[row].attributes[place] or "(empty)" for row in scored.rows])


def count_hits(scored: ScoredSet, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each group and class, the images that are right and all images: int64 (G, 2, C).

    Args:
        scored: N scored images.
        groups: of each image, int64 (N,), in [0, G).
    """
    counts = np.zeros((groups.max() + 1, 2, scored.report.probs.shape[1]), dtype=np.int64)
    np.add.at(counts[:, 0], (groups, scored.labels), scored.report.preds == scored.labels)
    np.add.at(counts[:, 1], (groups, scored.labels), 1)
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
