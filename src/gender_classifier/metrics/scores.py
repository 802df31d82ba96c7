"""Accuracy, loss, per-class scores and confusion matrix of N predictions."""

import re
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
    """Scores of N predictions of C classes.

    Attributes:
        metrics: flat, for JSON.
        confusion: counts, int64 (C, C); rows are actual, columns predicted classes.
        preds: int64 (N,).
        probs: float64 (N, C).
    """

    metrics: dict[str, float]
    confusion: Ints
    preds: Ints
    probs: Floats

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return self.metrics["accuracy_low"], self.metrics["accuracy_high"]


HEADLINES = (
    "accuracy", "accuracy_low", "accuracy_high", "recall_", "loss", "roc_auc", "ece", "robust_accuracy",
    "framing_accuracy", "occlusion_accuracy", "worst_group_balanced_accuracy", "group_gap", "group_gap_low",
    "group_gap_high", "unfamiliar_share", "nonfaces_unfamiliar_share",
)  # fmt: skip
"""The metrics that MLflow, ``dvc metrics``, the model file and the page show; metrics/test_report.json has all.

``recall_`` stands for those of all classes.
"""


def select_headlines(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the headline metrics that there are."""
    return {
        key: value
        for headline in HEADLINES
        for key, value in metrics.items()
        if key == headline or (headline.endswith("_") and key.startswith(headline))
    }


def as_key(text: str) -> str:
    """Return ``text`` as part of an MLflow metric key: class names are data, and may hold what MLflow refuses."""
    return re.sub(r"[^\w\-. ]", "_", text, flags=re.ASCII)


def as_keys(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by :func:`as_key`; names that become one key, such as ``<30`` and ``>30``, are numbered."""
    found = dict[str, float]()
    for name, value in metrics.items():
        key, number = as_key(name), 2
        while key in found:
            key, number = f"{as_key(name)}_{number}", number + 1
        found[key] = value
    return found


def evaluate(
    logits: NDArray[np.floating], labels: Ints, *, classes: Sequence[str], num_bins: int = 15, complete: bool = True
) -> Report:
    """Measure predictions.

    ``accuracy`` has Wilson's 95 % interval, ``loss`` is the mean cross entropy in nats, ``roc_auc`` and
    ``average_precision`` treat the last of two classes as positive (with more classes: one against the rest,
    averaged), and ``ece`` is the expected calibration error over the bins of :func:`reliability_points`.

    Args:
        logits: float (N, C).
        labels: int (N,), each in [0, C).
        classes: C names.
        num_bins: for ``ece``.
        complete: require images of every class; otherwise metrics of absent classes are left out, and averages are over
            those that are present.

    Raises:
        DataError: a logit is not finite, or a class has no image.
    """
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(logits)} images have logits that are not finite; train the model again")
    for label, name in enumerate(classes):
        if complete and label not in labels:
            raise DataError(f"none of the {len(labels)} images is {name}; every class needs at least one")
    probs = softmax(logits)
    preds = probs.argmax(axis=1)
    confusion = sk.confusion_matrix(labels, preds, labels=range(len(classes)))
    return Report(_measure(labels, preds, probs, classes, num_bins), confusion, preds, probs)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of ``hits / total``."""
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def balanced_interval(hits: Sequence[int], totals: Sequence[int]) -> tuple[float, float]:
    """Return a 95 % confidence interval of the balanced accuracy, the mean of the recalls ``hits / totals``.

    The recalls' Wilson intervals are combined by their distances from the recalls (MOVER; Zou & Donner, "Construction
    of confidence limits about effect measures", 2008), which also holds where a recall is 0 or 1.
    """
    recalls = [hit / total for hit, total in zip(hits, totals, strict=True)]
    bounds = [wilson_interval(hit, total) for hit, total in zip(hits, totals, strict=True)]
    below = sum((recall - low) ** 2 for recall, (low, _) in zip(recalls, bounds, strict=True)) ** 0.5
    above = sum((high - recall) ** 2 for recall, (_, high) in zip(recalls, bounds, strict=True)) ** 0.5
    middle = sum(recalls) / len(recalls)
    return middle - below / len(recalls), middle + above / len(recalls)


def compare_with_constant(confusion: Ints, classes: Sequence[str]) -> str:
    """Say that a model cannot be told from one that always gives the same answer; return "" if it can.

    It can if the 95 % interval of its balanced accuracy is above 1 / C.

    Args:
        confusion: counts, int (C, C) with an image of each class; rows are actual classes.
        classes: C names.
    """
    totals = confusion.sum(axis=1)
    low, high = balanced_interval(confusion.diagonal().tolist(), totals.tolist())
    if low > 1 / len(classes):
        return ""
    balanced = float(np.mean(confusion.diagonal() / totals))
    return (
        f"balanced accuracy {balanced:.4f} ({low:.4f} to {high:.4f}) on val cannot be told from that of always "
        f"answering {classes[int(totals.argmax())]} ({1 / len(classes):.4f})"
    )


def _measure(labels: Ints, preds: Ints, probs: Floats, classes: Sequence[str], num_bins: int) -> dict[str, float]:
    low, high = wilson_interval(int((preds == labels).sum()), len(labels))
    counts = np.bincount(labels, minlength=len(classes))
    present = [label for label, count in enumerate(counts) if count]
    # One class against the rest needs images of both.
    ranked = [1] if len(classes) == 2 else [label for label in present if counts[label] < len(labels)]
    scores, targets = probs[:, ranked], labels[:, None] == ranked
    found: dict[str, float] = {
        "accuracy": sk.accuracy_score(labels, preds),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": sk.log_loss(labels, probs, labels=range(len(classes))),
        "balanced_accuracy": np.mean([(preds[labels == label] == label).mean() for label in present]),
        "ece": calibration_error(reliability_points(probs, labels, num_bins=num_bins), len(labels)),
    }
    if len(present) > 1:
        found["roc_auc"] = sk.roc_auc_score(targets, scores)
        found["average_precision"] = sk.average_precision_score(targets, scores)
    per_class = sk.precision_recall_fscore_support(labels, preds, labels=range(len(classes)), zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), per_class, strict=False):
        found |= {f"{name}_{classes[label]}": values[label] for label in present}
    return {name: float(value) for name, value in found.items()}
