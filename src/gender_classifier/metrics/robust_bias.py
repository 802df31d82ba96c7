"""A bias of the classes that holds for changed images too. NumPy and SciPy alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gender_classifier.errors import DataError
from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.calibration import softmax
from gender_classifier.metrics.corruptions import FRAMING, OCCLUSION, OTHER, Pixels, choose_images, corrupt_in_turn
from gender_classifier.metrics.platt import fit_scaling

GROUPS = (FRAMING, OTHER, OCCLUSION)
MOST_IMAGES = 2048
"""Of val, each of which is corrupted once for each group."""

_MOST_LOST = 0.001  # of val's expected accuracy
_SHARES = np.linspace(1, 0, 101)  # of the bias that are tried, the largest first


def fit_robust_bias(
    predict: Callable[[Pixels], NDArray[np.floating]],
    images: Pixels,
    labels: Ints,
    logits: NDArray[np.floating],
    *,
    temperature: float,
) -> tuple[float, ...]:
    """Fit a bias to images of val as they are and corrupted, so that what a model sees less of favours no class.

    Fitting to corrupted val images is the idea of Tomani et al., "Post-hoc uncertainty calibration for domain drift
    scenarios" (2021). Here the images as they are and the three groups of corruptions have equal weights; the bias that
    the images as they are would get alone is subtracted, so that the balance that training gave the classes is kept.
    The bias is reduced, in hundredths, until it costs val at most 0.001 of the accuracy that the model's own calibrated
    probabilities expect: counted images would make that a matter of one or two.

    Args:
        predict: uint8 (N, S, S, 3) to logits, float (N, C).
        images: uint8 (N, S, S, 3), not used to fit the weights; at most 2,048 are used.
        labels: int (N,).
        logits: ``predict(images)``, which the caller has already.
        temperature: fitted to ``logits``.

    Returns:
        To be added to the logits: C numbers with sum 0, all 0 for a model that has learned nothing.
    """
    rows = choose_images(labels, MOST_IMAGES)
    pixels, chosen = np.asarray(images[rows]), labels[rows]
    changed = [predict(corrupt_in_turn(pixels, chosen, group)) for group in GROUPS]
    try:
        bias = _fit(np.concatenate([logits[rows], *changed]), np.tile(chosen, 1 + len(GROUPS)), temperature)
        bias -= _fit(logits[rows], chosen, temperature)
    except DataError:  # the logits are not related to the labels
        bias = np.zeros(logits.shape[1])
    probs = softmax(logits / temperature)

    def measure_loss(share: float) -> float:
        preds = (logits + share * bias).argmax(axis=1)
        return float((probs.max(axis=1) - probs[np.arange(len(preds)), preds]).mean())

    share = next(share for share in _SHARES if measure_loss(share) <= _MOST_LOST)
    return tuple(float(value) for value in share * bias)


def _fit(logits: NDArray[np.floating], labels: Ints, temperature: float) -> Floats:
    scaling = fit_scaling(softmax(logits / temperature), labels)
    return np.array(scaling.bias) * scaling.temperature * temperature
