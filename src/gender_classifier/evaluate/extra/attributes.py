"""Scores of a labelled set by attribute: of the images with each value of each column."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gender_classifier.evaluate.extra.sets import ScoredSet
from gender_classifier.metrics.scores import wilson_interval


@dataclass(frozen=True)
class AttributeRow:
    """Scores of the images with one value of one attribute.

    ``recalls`` has (n, recall, low, high) for each class; all but n are None without images.
    """

    attribute: str
    value: str
    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    recalls: tuple[tuple[int, float | None, float | None, float | None], ...]


def tabulate_attributes(scored: ScoredSet) -> list[AttributeRow]:
    """Measure all images, then those with each value of each attribute, with Wilson's 95 % intervals."""
    labelled, labels, report = scored.labelled, scored.labels, scored.report
    correct, num_classes = report.preds == labels, report.probs.shape[1]
    table = [_measure("all", "", labels, correct, num_classes)]
    for place, attribute in enumerate(labelled.attributes):
        values = np.array([labelled.images[row].attributes[place] for row in scored.rows])
        for value in sorted(set(values.tolist())):
            inside = values == value
            table.append(_measure(attribute, value, labels[inside], correct[inside], num_classes))
    return table


def attribute_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of :func:`flatten_row`."""
    per_class = [f"{key}_{name}{end}" for name in classes
                 for key, end in (("n", ""), ("recall", ""), ("recall", "_low"), ("recall", "_high"))]  # fmt: skip
    return ["attribute", "value", "n", "accuracy", "accuracy_low", "accuracy_high", *per_class]


def flatten_row(row: AttributeRow) -> list[object]:
    """Return the cells of a row; empty where a class has no image."""
    cells = [row.attribute, row.value, row.n, *map(_round, (row.accuracy, row.accuracy_low, row.accuracy_high))]
    for n, *figures in row.recalls:
        cells += [n, *map(_round, figures)]
    return cells


def _round(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _measure(
    attribute: str, value: str, labels: NDArray[np.int64], correct: NDArray[np.bool_], num_classes: int
) -> AttributeRow:
    recalls: list[tuple[int, float | None, float | None, float | None]] = []
    for label in range(num_classes):
        hits, total = int(correct[labels == label].sum()), int((labels == label).sum())
        recalls.append((total, hits / total, *wilson_interval(hits, total)) if total else (0, None, None, None))
    hits, total = int(correct.sum()), len(labels)
    return AttributeRow(attribute, value, total, hits / total, *wilson_interval(hits, total), tuple(recalls))
