"""ROC curve and threshold table of a binary score. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics as sk

from gender_classifier.metrics.arrays import Floats, Ints


def pick_positive(probs: Floats, labels: Ints) -> tuple[Floats, Ints]:
    """Return the score of the positive class, float64 (N,), and whether each image has it, int64 (N,).

    The last class is the positive one, against all others.
    """
    return probs[:, -1], (labels == probs.shape[1] - 1).astype(np.int64)


def roc_points(scores: Floats, labels: Ints, *, most: int = 400) -> list[tuple[float, float, float]]:
    """Return (false positive rate, true positive rate, threshold) of a binary score, thinned to about ``most`` rows.

    The first row, at which nothing is called positive, has the threshold 1.
    """
    false_positive, true_positive, thresholds = sk.roc_curve(labels, scores)
    thresholds[0] = 1.0  # scikit-learn says infinity, which few readers of CSV take
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).round().astype(int))
    return [(float(false_positive[i]), float(true_positive[i]), float(thresholds[i])) for i in kept]


def operating_point(confusion: Ints) -> tuple[float, float]:
    """Return false and true positive rate of the predictions counted in ``confusion``, as :func:`pick_positive`."""
    others = confusion[:-1]
    return float(others[:, -1].sum() / others.sum()), float(confusion[-1, -1] / confusion[-1].sum())


@dataclass(frozen=True)
class ThresholdRow:
    """What calling everything from ``threshold`` on positive gives: the second of two classes is the positive one."""

    threshold: float
    accuracy: float
    balanced_accuracy: float
    precision: float
    recall: float
    specificity: float


def threshold_points(scores: Floats, labels: Ints, *, count: int = 99) -> list[ThresholdRow]:
    """Measure ``count`` thresholds on a binary score, evenly spread over (0, 1).

    For unequal classes and unequal costs, where 0.5 need not be the place to cut.

    Args:
        scores: float (N,), of the positive class.
        labels: int (N,), 0 or 1.
        count: thresholds.
    """
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    rows = []
    for threshold in np.arange(1, count + 1) / (count + 1):
        called = scores >= threshold
        hits, false = int((called & (labels == 1)).sum()), int((called & (labels == 0)).sum())
        recall, specificity = hits / positives, 1 - false / negatives
        rows.append(
            ThresholdRow(
                threshold=float(threshold),
                accuracy=(hits + negatives - false) / len(labels),
                balanced_accuracy=(recall + specificity) / 2,
                precision=hits / max(hits + false, 1),
                recall=recall,
                specificity=specificity,
            )
        )
    return rows


def choose_threshold(rows: Sequence[ThresholdRow]) -> float:
    """Return the threshold of the highest balanced accuracy; of a plateau, its middle."""
    best = max(row.balanced_accuracy for row in rows)
    equal = [row.threshold for row in rows if row.balanced_accuracy > best - 1e-12]
    return equal[len(equal) // 2]
