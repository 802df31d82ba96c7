"""Predictions and confusion matrices as files hold them: one row an image, one object a confusion matrix."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.artifacts import Table
from gender_classifier.metrics.scores import Report


def tabulate_predictions(
    members: Sequence[str], labels: NDArray[np.int64], report: Report, classes: Sequence[str]
) -> Table:
    """Return member, actual and predicted class, whether they agree, and each class's probability, a row an image."""
    return Table(["member", *prediction_columns(classes)], _list_rows(members, labels, report, classes))


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of :func:`format_prediction`, and ``actual`` before them."""
    return ["actual", "predicted", "correct", *(f"prob_{name}" for name in classes)]


def format_prediction(label: int, pred: int, probs: NDArray[np.float64], classes: Sequence[str]) -> list[object]:
    """Return the cells that follow ``actual``: predicted class, 1 or 0, probabilities with six decimals."""
    return [classes[pred], int(label == pred), *(f"{prob:.6f}" for prob in probs)]


def tabulate_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return counts as ``{actual: {predicted: count}}``."""
    return {
        actual: {predicted: int(count) for predicted, count in zip(classes, row, strict=True)}
        for actual, row in zip(classes, confusion, strict=True)
    }


def _list_rows(
    members: Sequence[str], labels: NDArray[np.int64], report: Report, classes: Sequence[str]
) -> Iterator[list[object]]:
    for member, label, pred, probs in zip(members, labels, report.preds, report.probs, strict=True):
        yield [member, classes[label], *format_prediction(int(label), int(pred), probs, classes)]
