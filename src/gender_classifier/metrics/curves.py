"""ROC curve and threshold table of a binary score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sk

from gender_classifier.metrics.arrays import Floats, Ints


def pick_positive(probs: Floats, labels: Ints) -> tuple[Floats, Ints]:
    """Return binary scores, float64, and 0 or 1 for each of them, int64.

    Of two classes, the last is positive: (N,). Of more, each class is compared with the rest and all comparisons count
    alike (micro average): (N * C,).
    """
    if probs.shape[1] == 2:
        return probs[:, 1], (labels == 1).astype(np.int64)
    return probs.ravel(), (labels[:, None] == np.arange(probs.shape[1])).astype(np.int64).ravel()


def roc_points(scores: Floats, labels: Ints, *, most: int = 400) -> list[tuple[float, float, float]]:
    """Return (false positive rate, true positive rate, threshold) of a binary score, thinned to about ``most`` rows.

    In the first row nothing is predicted positive; its threshold is 1.
    """
    false_positive, true_positive, thresholds = sk.roc_curve(labels, scores)
    thresholds[0] = 1.0  # scikit-learn gives infinity, which many CSV readers reject
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).round().astype(int))
    return [(float(false_positive[i]), float(true_positive[i]), float(thresholds[i])) for i in kept]


def list_roc_curves(probs: Floats, labels: Ints, classes: Sequence[str]) -> dict[str, list[tuple[float, float, float]]]:
    """Return the points of :func:`roc_points` by positive class: the last of two, or each of more."""
    positives = [1] if len(classes) == 2 else range(len(classes))
    return {classes[label]: roc_points(probs[:, label], (labels == label).astype(np.int64)) for label in positives}


def operating_point(confusion: Ints) -> tuple[float, float]:
    """Return false and true positive rate of the predictions counted in ``confusion``, as :func:`pick_positive`."""
    if len(confusion) == 2:
        return float(confusion[0, 1] / confusion[0].sum()), float(confusion[1, 1] / confusion[1].sum())
    total, hits = confusion.sum(), confusion.trace()
    return float((total - hits) / (total * (len(confusion) - 1))), float(hits / total)


@dataclass(frozen=True)
class ThresholdRow:
    """Scores when scores from ``threshold`` on count as positive, as :func:`pick_positive`."""

    threshold: float
    accuracy: float
    balanced_accuracy: float
    precision: float
    recall: float
    specificity: float


def threshold_points(scores: Floats, labels: Ints, *, count: int = 99) -> list[ThresholdRow]:
    """Measure ``count`` thresholds on a binary score, evenly spaced in (0, 1).

    With unequal classes or costs, the best threshold may differ from 0.5.

    Args:
        scores: float (N,), of the positive class.
        labels: int (N,), 0 or 1.
        count: number of thresholds.
    """
    thresholds = np.arange(1, count + 1) / (count + 1)
    predicted, actual = scores >= thresholds[:, None], labels == 1
    hits, false = (predicted & actual).sum(axis=1), (predicted & ~actual).sum(axis=1)
    recall, specificity = hits / actual.sum(), 1 - false / (~actual).sum()
    accuracy = (hits + (~actual).sum() - false) / len(labels)
    precision = hits / np.maximum(hits + false, 1)
    rows = np.transpose([thresholds, accuracy, (recall + specificity) / 2, precision, recall, specificity])
    return [ThresholdRow(*row) for row in rows.tolist()]


def choose_threshold(rows: Sequence[ThresholdRow]) -> float:
    """Return the threshold with the highest balanced accuracy; the middle one of several."""
    best = max(row.balanced_accuracy for row in rows)
    equal = [row.threshold for row in rows if row.balanced_accuracy > best - 1e-12]
    return equal[len(equal) // 2]
