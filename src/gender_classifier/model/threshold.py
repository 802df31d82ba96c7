"""The threshold above which an image counts as unfamiliar, from scores of familiar ones."""

import math

import numpy as np
from numpy.typing import NDArray

RATE = 0.03
"""Share of familiar images that count as unfamiliar."""


def fit_threshold(scores: NDArray[np.floating]) -> float:
    """Return the threshold that a new familiar image exceeds with a probability of at most :data:`RATE`.

    It is the order statistic of split conformal prediction (Papadopoulos et al. 2002; Angelopoulos & Bates, "A gentle
    introduction to conformal prediction", 2021, section 1), or the highest score if there are fewer than 33.

    Args:
        scores: float (N,) of familiar images that did not fit what scores them; N at least 1.
    """
    rank = math.ceil((len(scores) + 1) * (1 - RATE))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])
