"""A bias of each class's logit, fitted to images of val as they are and corrupted. No files, no torch."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gender_classifier.errors import DataError, ModelError
from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.calibration import softmax
from gender_classifier.metrics.corruptions import FRAMING, OCCLUSION, OTHER, Pixels, choose_images, corrupt_in_turn
from gender_classifier.metrics.platt import fit_scaling

GROUPS = (FRAMING, OTHER, OCCLUSION)
MOST_IMAGES = 2048
"""Images of val that are used; each is corrupted once for each group."""

_MOST_LOST = 0.001  # of the expected accuracy on val
_LEAST_VAL = 1000  # images; with fewer, the limit would be less than one of them
_LEAST_IMAGES = 10  # of each class; fewer decide nothing
_SHARES = np.linspace(1, 0, 101)  # of the bias, tried from the largest


def is_enough(labels: Ints, num_classes: int) -> bool:
    """Return whether images with these labels can decide on a bias: 1,000 of them, and 10 of each class."""
    counts = np.bincount(labels[choose_images(labels, MOST_IMAGES)], minlength=num_classes)
    return bool(counts.sum() >= _LEAST_VAL and counts.min() >= _LEAST_IMAGES)


def fit_robust_bias(
    predict: Callable[[Pixels], NDArray[np.floating]],
    images: Pixels,
    labels: Ints,
    logits: NDArray[np.floating],
    *,
    temperature: float,
) -> tuple[float, ...]:
    """Fit a bias of the logits, so that corruptions of the images do not favour one class.

    Fitting to corrupted val images is the idea of Tomani et al., "Post-hoc uncertainty calibration for domain drift
    scenarios" (2021). Here the images as they are and the three groups of corruptions have equal weights, and so have
    the classes. The bias that the images as they are would get alone is subtracted: the balance that training gave the
    classes stays. The bias is reduced, in hundredths, until it costs val at most 0.001 of its expected accuracy: by
    calibrated probabilities, since counted mistakes would leave the decision to one or two images.

    Args:
        predict: uint8 (N, S, S, 3) to logits, float (N, C).
        images: uint8 (N, S, S, 3), not used to fit the weights; at most 2,048 are used.
        labels: int (N,).
        logits: ``predict(images)``, which the caller has already.
        temperature: fitted to ``logits``.

    Returns:
        To be added to the logits: C numbers with sum 0. Empty if the images are not enough (:func:`is_enough`), or if
        the logits are not related to the labels.

    Raises:
        ModelError: a logit of a corrupted image is not finite.
    """
    if not is_enough(labels, logits.shape[1]):
        return ()
    rows = choose_images(labels, MOST_IMAGES)
    pixels, chosen = np.asarray(images[rows]), labels[rows]
    changed = []
    for group in GROUPS:
        changed.append(predict(corrupt_in_turn(pixels, chosen, group)))
        if not np.isfinite(changed[-1]).all():
            raise ModelError(f"the logits of corrupted images ({group}) are not finite; train again with a lower `lr`")
    clean = [logits[rows]] * (1 + len(GROUPS))  # as often as below: the fit of few images is more cautious
    repeated = np.tile(chosen, len(clean))
    try:
        bias = _fit([logits[rows], *changed], repeated, temperature) - _fit(clean, repeated, temperature)
        own = fit_scaling(softmax(logits / temperature), labels)
    except DataError:
        return ()
    probs = own.apply(softmax(logits / temperature))
    every, preds = np.arange(len(labels)), logits.argmax(axis=1)

    def measure_loss(share: float) -> float:
        return float((probs[every, preds] - probs[every, (logits + share * bias).argmax(axis=1)]).mean())

    share = next(share for share in _SHARES if measure_loss(share) <= _MOST_LOST)
    return tuple(float(value) for value in share * bias)


def _fit(logits: Sequence[NDArray[np.floating]], labels: Ints, temperature: float) -> Floats:
    scaling = fit_scaling(softmax(np.concatenate(logits) / temperature), labels, balanced=True)
    return np.array(scaling.bias) * scaling.temperature * temperature
