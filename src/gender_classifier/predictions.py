"""How a report's rows and matrices look in files: one row an image, one object a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gender_classifier.evaluation import Report
from gender_classifier.spreadsheet import write_table


def write_predictions(
    path: Path, members: Sequence[str], labels: NDArray[np.int64], report: Report, classes: Sequence[str]
) -> None:
    """Write member, actual and predicted class name, whether right, and each class's probability, a row an image."""
    header = ["member", "actual", "predicted", "correct", *(f"prob_{name}" for name in classes)]
    rows = (
        [member, classes[label], classes[pred], int(label == pred), *(f"{prob:.6f}" for prob in probs)]
        for member, label, pred, probs in zip(members, labels, report.preds, report.probs, strict=True)
    )
    write_table(path, header, rows)


def tabulate_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return counts as ``{actual: {predicted: count}}``."""
    return {
        actual: {predicted: int(count) for predicted, count in zip(classes, row, strict=True)}
        for actual, row in zip(classes, confusion, strict=True)
    }
