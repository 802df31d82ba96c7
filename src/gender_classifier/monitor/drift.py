"""Drift between new images and the training data: population stability index and Kolmogorov-Smirnov test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gender_classifier.metrics.arrays import Ints
from gender_classifier.metrics.histograms import Histogram, Reference

MODERATE_PSI, LARGE_PSI = 0.1, 0.25
"""Population stability index of a moderate and of a large change (Siddiqi)."""

FALSE_ALARM_RATE = 0.01
"""Family-wise false-alarm rate per comparison (Bonferroni-corrected)."""

MIN_IMAGES = 100
"""Fewer are never reported as stable: with 100 images and ten bins, chance alone gives an index of about 0.09."""

_GROUPS = 10  # bins of the index, each with about a tenth of the reference


@dataclass(frozen=True)
class Comparison:
    """One statistic of the new images, compared with the reference.

    ``psi`` is the effect size, ``ks`` the largest difference between the cumulative distributions, and ``p_value`` the
    probability of such a difference without drift. ``verdict`` is ``stable``, ``moderate``, ``drift`` or ``too few``.
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
    """Compare every statistic for which ``new`` has values.

    Args:
        reference: histograms of the training data, from the model file.
        new: histograms of the new images, with the same bins.
        threshold: PSI that counts as drift.

    Returns:
        One comparison per statistic.
    """
    names = [name for name in reference if name in new and new[name].total]
    level = FALSE_ALARM_RATE / max(len(names), 1)
    return [_compare_one(name, reference[name], new[name], threshold, level) for name in names]


def _compare_one(name: str, old: Histogram, new: Histogram, threshold: float, level: float) -> Comparison:
    # A rare class must not vanish in its neighbour.
    groups = np.arange(len(old.counts)) if old.categories else group_bins(old.counts)
    psi = compute_psi(np.add.reduceat(old.counts, groups), np.add.reduceat(new.counts, groups))
    ks = compute_ks(old.counts, new.counts)
    p_value = compute_p_value(ks, old.total, new.total)
    verdict = judge_effect(psi, p_value, min(old.total, new.total), threshold=threshold, level=level)
    return Comparison(name, old.split, old.total, new.total, psi, ks, p_value, verdict)


def judge_effect(psi: float, p_value: float, count: int, *, threshold: float, level: float) -> str:
    """Return the verdict: drift must be statistically significant, stability needs enough images.

    Args:
        psi: effect size.
        p_value: of the Kolmogorov-Smirnov test.
        count: images in the smaller of the two sets.
        threshold: PSI that counts as drift.
        level: significance level.
    """
    significant = p_value < level
    if psi >= threshold and significant:
        return "drift"
    if count < MIN_IMAGES or (psi >= min(MODERATE_PSI, threshold) and not significant):
        return "too few"
    return "moderate" if psi >= MODERATE_PSI else "stable"


def summarize(comparisons: Sequence[Comparison]) -> str:
    """Return the overall verdict: the first of drift, too few, moderate, stable that any statistic has."""
    found = {comparison.verdict for comparison in comparisons}
    return next((verdict for verdict in ("drift", "too few", "moderate", "stable") if verdict in found), "too few")


def group_bins(counts: Ints) -> Ints:
    """Return the first bins of groups of adjacent bins, each with about a tenth of the reference's ``counts``.

    The bins below and above the reference's range are separate groups, since values there are new.
    """
    cumulative = np.cumsum(counts)
    tenths = cumulative[-1] * np.arange(1, _GROUPS) / _GROUPS
    inside = np.flatnonzero(counts)
    cuts = np.concatenate([[0, inside[0], inside[-1] + 1], np.searchsorted(cumulative, tenths) + 1])
    return np.unique(cuts[cuts < len(counts)])


def compute_psi(reference: Ints, new: Ints) -> float:
    """Return the population stability index, the sum of (q - p) ln(q / p) over groups; 0 for equal distributions.

    Half an image is added to each group (Krichevsky & Trofimov, 1981) to keep empty groups finite.

    Args:
        reference: counts (G,).
        new: counts (G,).
    """
    shares = [(counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (reference, new)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def compute_ks(reference: Ints, new: Ints) -> float:
    """Return the Kolmogorov-Smirnov statistic of two binned samples, 0 to 1; at most that of the unbinned samples."""
    return float(np.abs(np.cumsum(reference) / reference.sum() - np.cumsum(new) / new.sum()).max())


def compute_p_value(ks: float, num_reference: int, num_new: int) -> float:
    """Return the probability that two samples of the same distribution differ by ``ks`` or more.

    Kolmogorov's distribution with Stephens' correction (1970) for small samples. Bins and categories are ties, with
    which the true probability is even smaller (Noether 1963), so there are no additional false alarms.
    """
    size = math.sqrt(num_reference * num_new / (num_reference + num_new))
    scaled = (size + 0.12 + 0.11 / size) * ks
    if scaled < 0.3:  # where the series converges slowly, to 1
        return 1.0
    terms = np.arange(1, 101)
    return float(np.clip(2 * ((-1.0) ** (terms - 1) * np.exp(-2 * (terms * scaled) ** 2)).sum(), 0, 1))
