"""Softmax, temperature scaling and reliability."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import minimize_scalar

from gender_classifier.metrics.arrays import Floats, Ints


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Turn logits (N, C) into probabilities, float64 (N, C)."""
    probs: Floats = special.softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return probs


def fit_temperature(logits: NDArray[np.floating], labels: Ints) -> float:
    """Return the temperature T, 0.25 to 4, at which softmax(logits / T) gives the labels the highest likelihood.

    After Guo et al., "On calibration of modern neural networks" (2017). Predictions do not change.

    Args:
        logits: float (N, C), of images not used to fit the weights.
        labels: int (N,).
    """
    from sklearn import metrics as sk  # noqa: PLC0415  the rest works without scikit-learn

    def loss(log_temperature: float) -> float:
        probs = softmax(logits / np.exp(log_temperature))
        return float(sk.log_loss(labels, probs, labels=range(probs.shape[1])))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.25), np.log(4)), method="bounded").x))


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of confidence; ``confidence`` and ``accuracy`` are means over its ``count`` images."""

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


def calibration_error(bins: Sequence[ReliabilityBin], total: int) -> float:
    """Return the expected calibration error over ``total`` images."""
    return sum(point.count * abs(point.accuracy - point.confidence) for point in bins) / total
