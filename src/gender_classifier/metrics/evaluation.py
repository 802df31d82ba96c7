"""Logits to every figure of the report. Pure: no model, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn import metrics as sk

from gender_classifier.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Report:
    """What is known of N predictions over C classes.

    ``metrics`` is flat and ready for JSON. ``confusion`` counts int64 (C, C), a row an actual and a column a
    predicted class. ``preds`` int64 (N,), ``probs`` float64 (N, C).
    """

    metrics: dict[str, float]
    confusion: Ints
    preds: Ints
    probs: Floats


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Turn logits (N, C) into probabilities float64 (N, C)."""
    shifted = np.asarray(logits, dtype=np.float64)
    exponents = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probs: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return probs


def evaluate(logits: NDArray[np.floating], labels: Ints, *, classes: Sequence[str], num_bins: int = 15) -> Report:
    """Measure predictions.

    ``accuracy`` comes with Wilson's 95 % interval, ``loss`` is the mean cross entropy in nats, ``roc_auc`` and
    ``average_precision`` take the last of two classes as positive (of more, each against the rest, averaged), and
    ``ece`` is the expected calibration error of :func:`reliability_points`' bins.

    Args:
        logits: float (N, C).
        labels: int (N,), each in [0, C).
        classes: C names.
        num_bins: for ``ece``.

    Raises:
        DataError: a logit is not finite, or a class has no image.
    """
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(logits)} images have logits that are not finite; train it anew")
    counts = np.bincount(labels, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if not count:
            raise DataError(f"none of the {len(labels)} images is {name}; every class needs at least one")
    probs = softmax(logits)
    preds = probs.argmax(axis=1)
    confusion = sk.confusion_matrix(labels, preds, labels=range(len(classes)))
    return Report(_measure(labels, preds, probs, classes, num_bins), confusion, preds, probs)


def measure_tta(logits: NDArray[np.floating], once: NDArray[np.floating], labels: Ints) -> dict[str, float]:
    """Say what the second look of ``model.infer`` costs and what it gains.

    ``tta_share`` is the share of images whose logits it changed, ``accuracy_without_tta`` the accuracy of one pass.

    Args:
        logits: float (N, C).
        once: float (N, C), of one pass over the same images.
        labels: int (N,).
    """
    return {
        "tta_share": float((logits != once).any(axis=1).mean()),
        "accuracy_without_tta": float((once.argmax(axis=1) == labels).mean()),
    }


def fit_temperature(logits: NDArray[np.floating], labels: Ints) -> float:
    """Return the T, 0.25 to 4, at which softmax(logits / T) makes the labels likeliest.

    After Guo et al., "On calibration of modern neural networks" (2017). It moves no prediction.

    Args:
        logits: float (N, C), of images that the weights were not fitted to.
        labels: int (N,).
    """

    def loss(log_temperature: float) -> float:
        probs = softmax(logits / np.exp(log_temperature))
        return float(sk.log_loss(labels, probs, labels=range(probs.shape[1])))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.25), np.log(4)), method="bounded").x))


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share ``hits / total``."""
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _measure(labels: Ints, preds: Ints, probs: Floats, classes: Sequence[str], num_bins: int) -> dict[str, float]:
    low, high = wilson_interval(int((preds == labels).sum()), len(labels))
    scores = probs[:, 1] if len(classes) == 2 else probs
    targets = labels if len(classes) == 2 else np.eye(len(classes))[labels]
    found: dict[str, float] = {
        "accuracy": sk.accuracy_score(labels, preds),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": sk.log_loss(labels, probs, labels=range(len(classes))),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, preds),
        "roc_auc": sk.roc_auc_score(targets, scores),
        "average_precision": sk.average_precision_score(targets, scores),
        "ece": _calibration_error(reliability_points(probs, labels, num_bins=num_bins), len(labels)),
    }
    per_class = sk.precision_recall_fscore_support(labels, preds, labels=range(len(classes)), zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), per_class, strict=False):
        found |= {f"{name}_{label}": value for label, value in zip(classes, values, strict=True)}
    return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of confidence: means over its ``count`` images."""

    confidence: float
    accuracy: float
    count: int
    bin_low: float
    bin_high: float


def reliability_points(probs: Floats, labels: Ints, *, num_bins: int = 15) -> list[ReliabilityBin]:
    """Compare confidence and accuracy in equal-width bins of the top probability; empty bins are left out.

    After Guo et al., "On calibration of modern neural networks" (2017).
    """
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    points = []
    for place in np.unique(places):
        inside = places == place
        edges = (float(place / num_bins), float((place + 1) / num_bins))
        points.append(
            ReliabilityBin(float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum()), *edges)
        )
    return points


def _calibration_error(bins: Sequence[ReliabilityBin], total: int) -> float:
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total


def roc_points(scores: Floats, labels: Ints, *, most: int = 400) -> list[tuple[float, float, float]]:
    """Return (false positive rate, true positive rate, threshold) of a binary score, thinned to about ``most`` rows.

    The first row, at which nothing is called positive, has the threshold 1.
    """
    false_positive, true_positive, thresholds = sk.roc_curve(labels, scores)
    thresholds[0] = 1.0  # scikit-learn says infinity, which few readers of CSV take
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).round().astype(int))
    return [(float(false_positive[i]), float(true_positive[i]), float(thresholds[i])) for i in kept]


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


def rank_label_issues(probs: Floats, labels: Ints) -> Ints:
    """Return the rows whose label is likely wrong, the likeliest first.

    Confident learning (Northcutt et al. 2021): a row is listed where another class reaches the mean probability that
    this class has among the images labelled so, and more than the given label has; ranked by the label's probability.

    Args:
        probs: float (N, C), from a model that was not fitted to these rows.
        labels: int (N,).
    """
    classes = range(probs.shape[1])
    thresholds = np.array([probs[labels == place, place].mean() for place in classes])
    confident = np.where(probs >= thresholds, probs, 0)
    suggested = confident.argmax(axis=1)
    own = probs[np.arange(len(labels)), labels]
    rows = np.flatnonzero((confident.max(axis=1) > own) & (suggested != labels))
    return rows[np.argsort(own[rows], kind="stable")]


def worst_mistakes(report: Report, labels: Ints, count: int) -> Ints:
    """Return the rows of up to ``count`` wrong predictions, the most confident first, then by row."""
    wrong = np.flatnonzero(report.preds != labels)
    order = np.argsort(-report.probs[wrong].max(axis=1), kind="stable")
    return wrong[order][:count]
