"""Images worth a second look: likely wrong labels and the most confident mistakes."""

import numpy as np

from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.scores import Report


def rank_label_issues(probs: Floats, labels: Ints) -> Ints:
    """Return the rows whose label is likely wrong, the likeliest first.

    Confident learning (Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021): a row
    is listed where the model does not predict the label, and another class reaches the mean probability that this class
    has among the images labelled so (if several do, the likeliest counts). Ranked by self-confidence, the probability
    of the label.

    Args:
        probs: float (N, C), from a model that was not fitted to these rows.
        labels: int (N,).
    """
    classes = range(probs.shape[1])
    thresholds = np.array([probs[labels == place, place].mean() for place in classes])
    confident = np.where(probs >= thresholds, probs, 0)
    suggested = confident.argmax(axis=1)
    is_confident = confident.max(axis=1) > 0
    rows = np.flatnonzero(is_confident & (suggested != labels) & (probs.argmax(axis=1) != labels))
    own = probs[rows, labels[rows]]
    return rows[np.argsort(own, kind="stable")]


def worst_mistakes(report: Report, labels: Ints, count: int) -> Ints:
    """Return the rows of up to ``count`` wrong predictions, the most confident first, then by row."""
    wrong = np.flatnonzero(report.preds != labels)
    order = np.argsort(-report.probs[wrong].max(axis=1), kind="stable")
    return wrong[order][:count]
