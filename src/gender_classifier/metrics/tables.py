"""Predictions as tables and confusion matrices as mappings, for files."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.artifacts import Table
from gender_classifier.metrics.scores import Report


def tabulate_predictions(
    members: Sequence[str], labels: NDArray[np.int64], report: Report, classes: Sequence[str]
) -> Table:
    """Return one row per image: member, actual and predicted class, 1 if they agree, and a probability per class."""
    predictions = zip(members, labels, report.preds, report.probs, strict=True)
    rows = (
        [member, classes[label], *format_prediction(int(label), int(pred), probs, classes)]
        for member, label, pred, probs in predictions
    )
    return Table(["member", *prediction_columns(classes)], rows)


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """Return ``actual`` and the columns of :func:`format_prediction`."""
    return ["actual", "predicted", "correct", *(f"prob_{name}" for name in classes)]


def format_prediction(label: int, pred: int, probs: NDArray[np.float64], classes: Sequence[str]) -> list[object]:
    """Return the cells after ``actual``: predicted class, 1 if correct else 0, probabilities with six decimals."""
    return [classes[pred], int(label == pred), *(f"{prob:.6f}" for prob in probs)]


def tabulate_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return counts as ``{actual: {predicted: count}}``."""
    return {
        actual: {predicted: int(count) for predicted, count in zip(classes, row, strict=True)}
        for actual, row in zip(classes, confusion, strict=True)
    }
