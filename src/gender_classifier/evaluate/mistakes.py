"""Images worth a second look: likely wrong labels and the most confident mistakes."""

import numpy as np

from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.scores import Report


def rank_label_issues(probs: Floats, labels: Ints) -> Ints:
    """Return the rows whose label is likely wrong, the likeliest first.

    A row is listed where the model predicts another class than its label, and ranked by self-confidence, the
    probability of the label (Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021;
    the selection is their C_confusion). Their stricter selections miss more of the wrong labels, and the order already
    puts doubtful rows last.

    Args:
        probs: float (N, C), from a model that was not fitted to these rows.
        labels: int (N,).
    """
    rows = np.flatnonzero(probs.argmax(axis=1) != labels)
    return rows[np.argsort(probs[rows, labels[rows]], kind="stable")]


def worst_mistakes(report: Report, labels: Ints, count: int) -> Ints:
    """Return the rows of up to ``count`` wrong predictions, the most confident first, then by row."""
    wrong = np.flatnonzero(report.preds != labels)
    order = np.argsort(-report.probs[wrong].max(axis=1), kind="stable")
    return wrong[order][:count]
