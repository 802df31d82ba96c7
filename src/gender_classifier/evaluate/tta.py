"""What test-time augmentation costs and gains."""

import numpy as np
from numpy.typing import NDArray

from gender_classifier.metrics.arrays import Ints


def measure_tta(logits: NDArray[np.floating], once: NDArray[np.floating], labels: Ints) -> dict[str, float]:
    """Say what the second look of ``model.infer`` costs and what it gains.

    ``tta_share`` is the share of images whose logits it changed, ``accuracy_without_tta`` the accuracy of one pass.

    Args:
        logits: float (N, C).
        once: float (N, C), of one pass over the same images.
        labels: int (N,).
    """
    return {
        "tta_share": float((logits != once).any(axis=1).mean()),
        "accuracy_without_tta": float((once.argmax(axis=1) == labels).mean()),
    }
