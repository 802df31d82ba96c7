"""Have new pictures drifted from those that the model was made with? Histograms and their comparison. Pure.

Effect and evidence are kept apart. The effect is the population stability index (PSI): below 0.1 no change worth a
name, from 0.25 a large one (Siddiqi, "Credit risk scorecards", 2006). The evidence is the two-sample
Kolmogorov-Smirnov test, held to a level that all statistics share. Among many pictures the test calls every trifle
significant, among few the index is large by chance (its mean is about (bins - 1)(1/n + 1/m): Yurdakul, "Statistical
properties of population stability index", 2018); drift is what both see.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.errors import ModelError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MODERATE_PSI, LARGE_PSI = 0.1, 0.25
"""Siddiqi's bands."""

FALSE_ALARM_RATE = 0.01
"""Of one comparison of equally distributed pictures, all statistics together (Bonferroni)."""

MIN_IMAGES = 100
"""Fewer cannot be called stable: chance alone makes the index of ten bins about 0.09 there."""

_GROUPS = 10  # bins of the index, each with about a tenth of the reference

UNITS = {
    "brightness": "mean luma, 0 black to 1 white",
    "contrast": "standard deviation of luma, 0 to 0.5",
    "width": "px",
    "height": "px",
    "class": "predicted",
    "confidence": "highest probability",
}
"""Every statistic and its unit; contrast is RMS contrast (Peli, "Contrast in complex images", 1990)."""

# Fine bins, so that any reference can be cut into tenths. Sizes by 16th parts of an octave; confidence, which piles up
# near 1, finer there.
_SIDES = np.round(np.geomspace(8, 16384, 11 * 16 + 1), 2)
_EDGES: dict[str, Floats] = {
    "brightness": np.linspace(0, 1, 129),
    "contrast": np.linspace(0, 0.5, 129),
    "width": _SIDES,
    "height": _SIDES,
    "confidence": np.array([*range(0, 980, 20), 980, 985, 990, 993, 995, 997, 998, 999, 999.5, 1000]) / 1000,
}
SIZE_STATISTICS = ("width", "height")
PIXEL_STATISTICS = ("brightness", "contrast")
PREDICTION_STATISTICS = ("class", "confidence")

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG


class Histogram:
    """Counts in fixed bins: of numbers between ``edges``, or of ``categories``; memory does not grow with the values.

    ``split`` says of which images; ``counts`` is int64 (B,), ``edges`` float64 (B + 1,).
    """

    def __init__(
        self, edges: Sequence[float] | NDArray[Any], *, split: str = "", categories: Sequence[str] = ()
    ) -> None:
        """Start empty."""
        self.edges: Floats = np.asarray(edges, dtype=np.float64)
        self.split, self.categories = split, tuple(categories)
        self.counts: Ints = np.zeros(len(self.edges) - 1, dtype=np.int64)

    def add(self, values: NDArray[Any] | Sequence[float]) -> None:
        """Count numbers, or places of categories; what lies beyond the edges counts as in the outermost bin."""
        places = np.searchsorted(self.edges, np.asarray(values, dtype=np.float64), side="right") - 1
        np.add.at(self.counts, np.clip(places, 0, len(self.counts) - 1), 1)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def like(self, split: str = "") -> Histogram:
        """Return an empty one with the same bins."""
        return Histogram(self.edges, split=split, categories=self.categories)

    def quantile(self, share: float) -> float:
        """Return about the value below which ``share`` of the values lie, to the width of a bin; NaN if empty."""
        if not self.total:
            return math.nan
        return float(np.interp(share * self.total, np.cumsum([0, *self.counts]), self.edges))


Reference = Mapping[str, Histogram]
"""Statistic name to its distribution: those of pictures on train, those of predictions on val."""


def start_histogram(name: str, split: str, classes: Sequence[str] = ()) -> Histogram:
    """Return an empty histogram of one of :data:`UNITS`; ``classes`` are the categories of ``class``."""
    if name == "class":
        return Histogram(np.arange(len(classes) + 1), split=split, categories=classes)
    return Histogram(_EDGES[name], split=split)


def measure_pixels(images: NDArray[np.uint8]) -> dict[str, Floats]:
    """Return ``brightness`` and ``contrast``, float64 (N,) each, of uint8 (N, S, S, 3)."""
    luma = (images.reshape(len(images), -1, 3) @ _LUMA) / 255
    return dict(zip(PIXEL_STATISTICS, (luma.mean(axis=1), luma.std(axis=1)), strict=True))


def measure_predictions(probs: NDArray[np.floating]) -> dict[str, NDArray[Any]]:
    """Return ``class``, the place of the highest probability, and ``confidence``, that probability, of (N, C)."""
    return dict(zip(PREDICTION_STATISTICS, (probs.argmax(axis=1), probs.max(axis=1)), strict=True))


def to_jsonable(reference: Reference) -> dict[str, dict[str, Any]]:
    """Return what JSON can hold; :func:`parse_reference` reads it."""
    return {
        name: {
            "split": one.split,
            **({"categories": list(one.categories)} if one.categories else {"edges": one.edges.tolist()}),
            "counts": one.counts.tolist(),
        }
        for name, one in reference.items()
    }


def parse_reference(text: str | None, origin: str) -> dict[str, Histogram]:
    """Read the distributions that ``evaluate`` kept in the model file; statistics unknown here are left out.

    Args:
        text: JSON, or None where the file holds none.
        origin: what to call the file in an error.

    Raises:
        ModelError: there are none, or they are damaged.
    """
    if text is None:
        raise ModelError(f"{origin}: holds no statistics of its training data; make it anew with `dvc repro`")
    try:
        return {name: _parse_histogram(entry) for name, entry in json.loads(text).items() if name in UNITS}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{origin}: its statistics of the training data are damaged ({type(error).__name__}: {error}); make it "
            "anew with `dvc repro`"
        ) from None


def _parse_histogram(entry: Mapping[str, Any]) -> Histogram:
    categories = [str(name) for name in entry.get("categories", ())]
    edges = np.arange(len(categories) + 1) if categories else np.asarray(entry["edges"], dtype=np.float64)
    found = Histogram(edges, split=str(entry["split"]), categories=categories)
    counts = np.asarray(entry["counts"], dtype=np.int64)
    if counts.shape != found.counts.shape or (np.diff(edges) <= 0).any() or (counts < 0).any() or not counts.any():
        raise ValueError("counts and bins do not belong together")
    found.counts = counts
    return found


@dataclass(frozen=True)
class Comparison:
    """One statistic, the reference against the new pictures.

    ``psi`` is the effect, ``ks`` the largest difference of the two cumulative shares, ``p_value`` how often equally
    distributed pictures differ so much. ``verdict`` is ``stable``, ``moderate``, ``drift`` or ``too few``.
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
        new: of the new pictures.
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
