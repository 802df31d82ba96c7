"""Accuracy, loss, per-class scores and confusion of N predictions. Pure: no model, no files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn import metrics as sk

from gender_classifier.errors import DataError
from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.calibration import calibration_error, reliability_points, softmax


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

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return self.metrics["accuracy_low"], self.metrics["accuracy_high"]


HEADLINES = ("accuracy", "accuracy_low", "accuracy_high", "loss", "roc_auc", "ece", "robust_accuracy")
"""The metrics that ``dvc metrics``, the model file and the page show; metrics/test_report.json has all."""


def select_headlines(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the headline metrics that there are."""
    return {key: metrics[key] for key in HEADLINES if key in metrics}


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
        raise DataError(f"{bad} of {len(logits)} images have logits that are not finite; train it again")
    counts = np.bincount(labels, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if not count:
            raise DataError(f"none of the {len(labels)} images is {name}; every class needs at least one")
    probs = softmax(logits)
    preds = probs.argmax(axis=1)
    confusion = sk.confusion_matrix(labels, preds, labels=range(len(classes)))
    return Report(_measure(labels, preds, probs, classes, num_bins), confusion, preds, probs)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share ``hits / total``."""
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _measure(labels: Ints, preds: Ints, probs: Floats, classes: Sequence[str], num_bins: int) -> dict[str, float]:
    low, high = wilson_interval(int((preds == labels).sum()), len(labels))
    scores = probs[:, -1] if len(classes) == 2 else probs
    targets = labels if len(classes) == 2 else np.eye(len(classes))[labels]
    found: dict[str, float] = {
        "accuracy": sk.accuracy_score(labels, preds),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": sk.log_loss(labels, probs, labels=range(len(classes))),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, preds),
        "roc_auc": sk.roc_auc_score(targets, scores),
        "average_precision": sk.average_precision_score(targets, scores),
        "ece": calibration_error(reliability_points(probs, labels, num_bins=num_bins), len(labels)),
    }
    per_class = sk.precision_recall_fscore_support(labels, preds, labels=range(len(classes)), zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), per_class, strict=False):
        found |= {f"{name}_{label}": value for label, value in zip(classes, values, strict=True)}
    return {name: float(value) for name, value in found.items()}
