"""Histograms of pixel statistics and predictions, in constant memory."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.errors import ModelError
from gender_classifier.metrics.arrays import Floats, Ints

UNITS = {
    "brightness": "mean luma, 0 black to 1 white",
    "contrast": "standard deviation of luma, 0 to 0.5",
    "width": "px",
    "height": "px",
    "class": "predicted",
    "confidence": "highest probability",
    "unfamiliar": "unlike the training images",
}
"""Statistics and their units; contrast is RMS contrast (Peli, "Contrast in complex images", 1990)."""

# Fine bins, so that deciles of any reference can be found. Sizes: one bin per pixel up to 512, centered on the size,
# then 16 an octave; confidence: finer near 1.
_SIDES = np.concatenate([np.arange(0.5, 513), np.round(np.geomspace(512, 16384, 5 * 16 + 1)[1:], 2)])
_EDGES: dict[str, Floats] = {
    "brightness": np.linspace(0, 1, 129),
    "contrast": np.linspace(0, 0.5, 129),
    "width": _SIDES,
    "height": _SIDES,
    "confidence": np.array([*range(0, 980, 20), 980, 985, 990, 993, 995, 997, 998, 999, 999.5, 1000]) / 1000,
}

SIZE_STATISTICS = ("width", "height")
PIXEL_STATISTICS = ("brightness", "contrast")

_UNFAMILIAR = ("no", "yes")  # categories of `unfamiliar`

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG


class Histogram:
    """Counts in fixed bins of numbers, or of categories.

    Attributes:
        edges: float64 (B + 1,).
        split: of the images.
        categories: names of the bins; empty for numbers.
        counts: int64 (B,).
    """

    def __init__(
        self, edges: Sequence[float] | NDArray[Any], *, split: str = "", categories: Sequence[str] = ()
    ) -> None:
        """Start empty."""
        self.edges: Floats = np.asarray(edges, dtype=np.float64)
        self.split, self.categories = split, tuple(categories)
        self.counts: Ints = np.zeros(len(self.edges) - 1, dtype=np.int64)

    def add(self, values: NDArray[Any] | Sequence[float]) -> None:
        """Count numbers, or indices of categories; values beyond the edges count in the outermost bins."""
        places = np.searchsorted(self.edges, np.asarray(values, dtype=np.float64), side="right") - 1
        np.add.at(self.counts, np.clip(places, 0, len(self.counts) - 1), 1)

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    def like(self, split: str = "") -> "Histogram":
        """Return an empty histogram with the same bins."""
        return Histogram(self.edges, split=split, categories=self.categories)

    def quantile(self, share: float) -> float:
        """Return the quantile of ``share``, 0 to 1, to the width of a bin; NaN if empty."""
        if not self.total:
            return math.nan
        return float(np.interp(share * self.total, np.cumsum([0, *self.counts]), self.edges))


Reference = Mapping[str, Histogram]
"""Name of a statistic to its distribution: of images in train, of predictions in val."""


def start_histogram(name: str, split: str, classes: Sequence[str] = ()) -> Histogram:
    """Return an empty histogram of one of :data:`UNITS`; ``classes`` are the categories of ``class``."""
    categories = {"class": classes, "unfamiliar": _UNFAMILIAR}.get(name)
    if categories is not None:
        return Histogram(np.arange(len(categories) + 1), split=split, categories=categories)
    return Histogram(_EDGES[name], split=split)


def measure_pixels(images: NDArray[np.uint8]) -> dict[str, Floats]:
    """Return ``brightness`` and ``contrast``, float64 (N,) each, of uint8 (N, S, S, 3)."""
    luma = (images.reshape(len(images), -1, 3) @ _LUMA) / 255
    return {"brightness": luma.mean(axis=1), "contrast": luma.std(axis=1)}


def measure_predictions(
    probs: NDArray[np.floating], unfamiliar: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[Any]]:
    """Return ``class``, the index of the highest probability, and ``confidence``, that probability, (N,) each.

    Args:
        probs: float (N, C).
        unfamiliar: bool (M,), of those images that it is known of; None to leave it out.
    """
    flags = {} if unfamiliar is None else {"unfamiliar": unfamiliar.astype(np.int64)}
    return {"class": probs.argmax(axis=1), "confidence": probs.max(axis=1), **flags}


def to_jsonable(reference: Reference) -> dict[str, dict[str, Any]]:
    """Return a mapping for JSON, which :func:`parse_reference` reads."""
    return {
        name: {
            "split": histogram.split,
            **({"categories": histogram.categories} if histogram.categories else {"edges": histogram.edges.tolist()}),
            "counts": histogram.counts.tolist(),
        }
        for name, histogram in reference.items()
    }


def parse_reference(text: str | None, origin: str) -> dict[str, Histogram]:
    """Read the distributions that ``evaluate`` stores in the model file; unknown statistics are ignored.

    Args:
        text: JSON, or None if the file has none.
        origin: name of the file, for errors.

    Raises:
        ModelError: the distributions are missing or damaged.
    """
    if text is None:
        raise ModelError(f"{origin}: holds no statistics of its training data; make it again with `dvc repro`")
    try:
        return {name: _parse_histogram(entry) for name, entry in json.loads(text).items() if name in UNITS}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{origin}: its statistics of the training data are damaged ({type(error).__name__}: {error}); make it "
            "again with `dvc repro`"
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
