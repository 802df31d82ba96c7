"""Have new images drifted from the training data? Population stability index and Kolmogorov-Smirnov test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gender_classifier.metrics.arrays import Ints
from gender_classifier.metrics.histograms import Histogram, Reference

MODERATE_PSI, LARGE_PSI = 0.1, 0.25
"""Siddiqi's bands."""


FALSE_ALARM_RATE = 0.01
"""Of one comparison of equally distributed images, all statistics together (Bonferroni)."""


MIN_IMAGES = 100
"""Fewer cannot be called stable: chance alone makes the index of ten bins about 0.09 there."""


_GROUPS = 10  # bins of the index, each with about a tenth of the reference


@dataclass(frozen=True)
class Comparison:
    """One statistic, the reference against the new images.

    ``psi`` is the effect, ``ks`` the largest difference of the two cumulative shares, ``p_value`` how often equally
    distributed images differ so much. ``verdict`` is ``stable``, ``moderate``, ``drift`` or ``too few``.
    """

    name: str
    split: str
    num_reference: int
    num_new: int
    psi: float
    ks: float
    p_value: float
    verdict: str


def compare(reference: Reference, new: Reference, *, threshold: float = LARGE_PSI) -> list[Comparison]:
    """Compare each statistic that ``new`` holds; bins must be those of ``reference``.

    Args:
        reference: of the model file.
        new: of the new images.
        threshold: PSI that counts as drift.

    Returns:
        One comparison a statistic; one without new values is left out.
    """
    names = [name for name in reference if name in new and new[name].total]
    level = FALSE_ALARM_RATE / max(len(names), 1)
    return [_compare_one(name, reference[name], new[name], threshold, level) for name in names]


def _compare_one(name: str, old: Histogram, new: Histogram, threshold: float, level: float) -> Comparison:
    groups = group_bins(old.counts)
    psi = compute_psi(np.add.reduceat(old.counts, groups), np.add.reduceat(new.counts, groups))
    ks = compute_ks(old.counts, new.counts)
    p_value = compute_p_value(ks, old.total, new.total)
    verdict = judge_effect(psi, p_value, min(old.total, new.total), threshold=threshold, level=level)
    return Comparison(name, old.split, old.total, new.total, psi, ks, p_value, verdict)


def judge_effect(psi: float, p_value: float, count: int, *, threshold: float, level: float) -> str:
    """Return the verdict: an effect is believed where chance is ruled out, and its absence where images suffice.

    Args:
        psi: the effect.
        p_value: of the test.
        count: images in the smaller of the two sets.
        threshold: PSI that counts as drift.
        level: below which a ``p_value`` rules chance out.
    """
    proven = p_value < level
    if psi >= threshold and proven:
        return "drift"
    if count < MIN_IMAGES or (psi >= min(MODERATE_PSI, threshold) and not proven):
        return "too few"
    return "moderate" if psi >= MODERATE_PSI else "stable"


def summarize(comparisons: Sequence[Comparison]) -> str:
    """Return the verdict over all statistics: the first of drift, too few, moderate, stable that any of them has."""
    verdicts = {one.verdict for one in comparisons}
    return next((one for one in ("drift", "too few", "moderate", "stable") if one in verdicts), "too few")


def group_bins(counts: Ints) -> Ints:
    """Return where groups of adjacent bins begin, each with about a tenth of the reference's ``counts``.

    Bins beyond the reference's range, below and above, are groups of their own: what comes to lie there is new.
    """
    cumulative = np.cumsum(counts)
    tenths = cumulative[-1] * np.arange(1, _GROUPS) / _GROUPS
    inside = np.flatnonzero(counts)
    cuts = np.concatenate([[0, inside[0], inside[-1] + 1], np.searchsorted(cumulative, tenths) + 1])
    return np.unique(cuts[cuts < len(counts)])


def compute_psi(reference: Ints, new: Ints) -> float:
    """Return the population stability index, sum of (q - p) ln(q / p) over groups: at least 0, 0 for equal shares.

    Half an image is added to each group (Krichevsky & Trofimov, 1981), so that an empty one is not infinitely far.

    Args:
        reference: counts (G,).
        new: counts (G,).
    """
    shares = [(counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (reference, new)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def compute_ks(reference: Ints, new: Ints) -> float:
    """Return the Kolmogorov-Smirnov statistic of two binned samples, 0 to 1: never above that of the values."""
    return float(np.abs(np.cumsum(reference) / reference.sum() - np.cumsum(new) / new.sum()).max())


def compute_p_value(ks: float, num_reference: int, num_new: int) -> float:
    """Return how likely two equally distributed samples differ by ``ks`` or more.

    Kolmogorov's distribution with Stephens' correction (1970) for small samples. Bins and categories are ties, which
    make the true probability smaller still (Noether 1963): no false alarm more.
    """
    size = math.sqrt(num_reference * num_new / (num_reference + num_new))
    scaled = (size + 0.12 + 0.11 / size) * ks
    if scaled < 0.3:  # the series converges slowly there, towards 1
        return 1.0
    terms = np.arange(1, 101)
    return float(np.clip(2 * ((-1.0) ** (terms - 1) * np.exp(-2 * (terms * scaled) ** 2)).sum(), 0, 1))
