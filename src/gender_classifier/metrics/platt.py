"""Temperature and bias of probabilities, fitted to labelled images, and what they change. NumPy and SciPy alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from gender_classifier.errors import DataError
from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.calibration import softmax

LEAST_PROB = 1e-12
"""Probabilities are clipped here before their logarithm, in the graph too: float32 may round them to 0."""

FOLDS, _REPEATS, _DRAWS = 5, 20, 100  # draws: bootstrap draws for each repeat

_LEAST_SCALE = 0.05  # of the log-probabilities; a fit below it has found no relation to the labels


@dataclass(frozen=True)
class Scaling:
    """Calibrated probabilities are softmax(log(p) / ``temperature`` + ``bias``).

    The bias has one entry a class, with sum 0.
    """

    temperature: float
    bias: tuple[float, ...]

    def apply(self, probs: NDArray[np.floating]) -> Floats:
        """Return calibrated probabilities, float64 (N, C), of probabilities (N, C)."""
        return softmax(_take_log(probs) / self.temperature + np.array(self.bias))


def fit_scaling(probs: NDArray[np.floating], labels: Ints, *, balanced: bool = False) -> Scaling:
    """Fit temperature and bias by maximum likelihood.

    For two classes this is Platt scaling of the logit (Platt, "Probabilistic outputs for support vector machines",
    1999), with the targets of that paper instead of 0 and 1: (n + 1) / (n + C) for the label, 1 / (n + C) for the
    other classes, which keeps few images from giving certain answers. For more it is the vector scaling of Guo et al.,
    "On calibration of modern neural networks" (2017), with one temperature for all classes.

    Args:
        probs: float (N, C).
        labels: int (N,); every class has an image.
        balanced: give each class the same weight in all, whatever its number of images.

    Raises:
        DataError: the probabilities are unrelated or opposed to the labels.
    """
    logs, num_classes = _take_log(probs), probs.shape[1]
    totals = np.bincount(labels, minlength=num_classes)[labels, None]
    targets = np.where(np.eye(num_classes, dtype=bool)[labels], totals + 1, 1) / (totals + num_classes)
    weights = 1 / (num_classes * totals) if balanced else np.full(totals.shape, 1 / len(labels))
    # Of each image and class: the factors of the scale and of the biases. The last bias is 0 during the fit.
    biases = np.broadcast_to(np.eye(num_classes)[:, :-1], (*logs.shape, num_classes - 1))
    factors = np.concatenate([logs[..., None], biases], axis=2)

    def predict(values: Floats) -> Floats:
        return softmax(factors @ values)

    def loss(values: Floats) -> float:
        return float(-(weights * targets * _take_log(predict(values))).sum())

    def slope(values: Floats) -> Floats:
        found: Floats = np.einsum("nc,ncp->p", weights * (predict(values) - targets), factors)
        return found

    def curvature(values: Floats) -> Floats:
        found = predict(values)
        means = np.einsum("nc,ncp->np", found, factors)
        squares: Floats = np.einsum("nc,ncp,ncq->pq", weights * found, factors, factors)
        squares -= (weights * means).T @ means
        return squares

    start = np.array([1.0, *np.zeros(num_classes - 1)])
    # Convex: about six steps, a tenth of the time of a method without second derivatives.
    scale, *bias = minimize(loss, start, jac=slope, hess=curvature, method="trust-exact", options={"gtol": 1e-7}).x
    bias.append(0.0)
    if scale < _LEAST_SCALE:
        raise DataError(
            f"the model's probabilities are not related to the labels of these {len(labels)} images, or opposed to "
            "them; check that no labels are swapped, and that the images are of the model's kind"
        )
    return Scaling(float(1 / scale), tuple(float(value - np.mean(bias)) for value in bias))


@dataclass(frozen=True)
class Figure:
    """A metric before and after calibration, and its change, each with its 95 % interval: (value, low, high)."""

    before: tuple[float, float, float]
    after: tuple[float, float, float]
    change: tuple[float, float, float]

    @property
    def falls(self) -> bool:
        """True if the whole interval of the change is below 0."""
        return self.change[2] < 0


def cross_validate(
    probs: NDArray[np.floating],
    before: NDArray[np.floating],
    labels: Ints,
    classes: Sequence[str],
    groups: Sequence[object] = (),
    *,
    num_bins: int = 15,
) -> dict[str, Figure]:
    """Compare probabilities as they are with those of a scaling that was fitted to other images.

    Stratified 5-fold cross-validation, repeated 20 times; each image is calibrated by fits that have not seen it. The
    intervals are of a bootstrap of the images (of the groups, if there are any) with 100 draws for each repeat, the
    same draws before and after.

    Args:
        probs: to be calibrated, float (N, C).
        before: to be compared with, float (N, C).
        labels: int (N,).
        classes: C names.
        groups: of each image; images of one group are in one fold. Empty if each is its own.
        num_bins: of the calibration error.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``recall_CLASS``, ``ece`` and ``loss``.

    Raises:
        DataError: the images of a class are in fewer than 5 groups.
    """
    ids = np.unique(np.asarray(groups), return_inverse=True)[1] if len(groups) else np.arange(len(labels))
    for label, name in enumerate(classes):
        found = len(np.unique(ids[labels == label]))
        if found < FOLDS:
            raise DataError(f"the images of {name} are of {found} groups; cross-validation needs at least {FOLDS}")
    rng = np.random.default_rng(0)
    measure = partial(_measure, labels=labels, classes=classes, num_bins=num_bins)
    old, new, old_draws, new_draws = [], [], [], []
    for _ in range(_REPEATS):
        after = np.empty(probs.shape)
        folds = _split(labels, ids, rng)
        for fold in range(FOLDS):
            inside = folds == fold
            after[inside] = fit_scaling(probs[~inside], labels[~inside]).apply(probs[inside])
        drawn = rng.multinomial(ids.max() + 1, np.full(ids.max() + 1, 1 / (ids.max() + 1)), _DRAWS)[:, ids]
        once = np.ones((1, len(labels)))
        old.append(measure(before, weights=once))
        new.append(measure(after, weights=once))
        old_draws.append(measure(before, weights=drawn))
        new_draws.append(measure(after, weights=drawn))
    figures = {}
    for name in old[0]:
        values = [np.concatenate([one[name] for one in each]) for each in (old, new, old_draws, new_draws)]
        most = np.inf if name == "loss" else 1
        figures[name] = Figure(
            _describe(values[0], values[2], 0, most),
            _describe(values[1], values[3], 0, most),
            _describe(values[1] - values[0], values[3] - values[2]),
        )
    return figures


def _take_log(probs: NDArray[np.floating]) -> Floats:
    return np.log(np.maximum(np.asarray(probs, dtype=np.float64), LEAST_PROB))


def _split(labels: Ints, ids: Ints, rng: np.random.Generator) -> Ints:
    """Return the fold of each image, with about equally many of each class; groups stay whole."""
    counts = np.zeros((ids.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(counts, (ids, labels), 1)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled, folds = np.zeros((FOLDS, counts.shape[1])), np.empty(len(counts), dtype=np.int64)
    for group in order:
        # Least of the classes that the group adds to; of equal folds, the one with the fewest images.
        fold = min(range(FOLDS), key=lambda fold: (filled[fold] @ counts[group], filled[fold].sum()))
        filled[fold] += counts[group]
        folds[group] = fold
    return folds[ids]


def _measure(
    probs: NDArray[np.floating], *, labels: Ints, classes: Sequence[str], num_bins: int, weights: NDArray[np.number]
) -> Mapping[str, Floats]:
    """Measure weighted images: ``weights`` (B, N) gives how often each image counts in each of B draws."""
    correct, confidence = probs.argmax(axis=1) == labels, probs.max(axis=1)
    totals = weights.sum(axis=1)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.zeros((len(labels), num_bins))
    gaps[np.arange(len(labels)), bins] = confidence - correct
    losses = -_take_log(probs)[np.arange(len(labels)), labels]
    recalls = dict(_list_recalls(correct, labels, classes, weights))
    return {
        "accuracy": weights @ correct / totals,
        "balanced_accuracy": np.mean(list(recalls.values()), axis=0),
        **recalls,
        "ece": np.abs(weights @ gaps).sum(axis=1) / totals,
        "loss": weights @ losses / totals,
    }


def _list_recalls(
    correct: NDArray[np.bool_], labels: Ints, classes: Sequence[str], weights: NDArray[np.number]
) -> Iterator[tuple[str, Floats]]:
    for label, name in enumerate(classes):
        inside = labels == label
        totals = weights[:, inside].sum(axis=1)
        # A draw of few groups may lack a class; it says nothing of that class.
        yield f"recall_{name}", np.where(totals, weights[:, inside] @ correct[inside] / np.maximum(totals, 1), np.nan)


def _describe(
    values: Floats, drawn: Floats, least: float = -np.inf, most: float = np.inf
) -> tuple[float, float, float]:
    """Return the mean and a percentile interval of ``drawn``, moved by its bias: draws raise the calibration error.

    The interval is cut at ``least`` and ``most``, which the move may pass.
    """
    value = values.mean()
    low, high = np.nanquantile(drawn, [0.025, 0.975]) + value - np.nanmean(drawn)
    return float(value), max(float(low), least), min(float(high), most)
