"""Groups of labelled images: with the same values of two attributes, such as age group and origin."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gender_classifier.evaluate.extra.attributes import (
    AttributeRow,
    ScoredImages,
    count_hits,
    measure_group,
    tabulate_attributes,
)

MIN_IMAGES, MIN_PER_CLASS = 50, 10
"""A group with fewer images, or fewer of a class, is counted and not measured: its interval would say nothing."""

_BOOTSTRAPS = 10_000


@dataclass(frozen=True)
class Groups:
    """The groups of a set of images by balanced accuracy.

    Attributes:
        rows: of the groups that are large enough, the worst first.
        small: number of the other groups.
        small_images: images in these, a group of each pair of attributes counted by itself.
        best: the best group of the same attributes as the worst; None with fewer than two.
        gap: difference of their balanced accuracies, with its 95 % interval.
    """

    rows: Sequence[AttributeRow]
    small: int
    small_images: int
    best: AttributeRow | None = None
    gap: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def metrics(self) -> dict[str, float]:
        """The worst group's balanced accuracy and its gap to the best; empty with fewer than two groups."""
        if self.best is None:
            return {}
        worst = self.rows[0].balanced_accuracy
        assert worst is not None
        names = ("group_gap", "group_gap_low", "group_gap_high")
        return {"worst_group_balanced_accuracy": worst, **dict(zip(names, self.gap, strict=True))}

    def describe(self) -> dict[str, object]:
        """Return counts, and the names of the worst and the best group, for JSON."""
        found: dict[str, object] = {
            "measured": len(self.rows), "too_small": self.small, "images_in_too_small": self.small_images
        }  # fmt: skip
        if self.best is not None:
            found |= {"worst": name_group(self.rows[0]), "best": name_group(self.best)}
        return found


@dataclass(frozen=True)
class AttributeReport:
    """Scores by attribute: ``rows`` of all images, then of those with each value; ``groups`` of two attributes."""

    rows: Sequence[AttributeRow]
    groups: Groups

    def list_rows(self) -> list[AttributeRow]:
        """Return the rows, then those of the groups unless they are the same."""
        known = {row.attribute for row in self.rows}
        return [*self.rows, *(row for row in self.groups.rows if row.attribute not in known)]


def report_attributes(images: ScoredImages) -> AttributeReport:
    """Measure the images by attribute and by group."""
    return AttributeReport(tabulate_attributes(images), find_groups(images))


def name_group(row: AttributeRow) -> str:
    """Return the name of a group, for tags and reports."""
    return f"{row.attribute}: {row.value}"


def find_groups(images: ScoredImages) -> Groups:
    """Measure the groups of each pair of attributes; with one attribute, those of its values.

    Without attributes there are no groups.
    """
    encoded = [images.encode(place) for place in range(len(images.attributes))]
    rows, small = list[AttributeRow](), list[int]()
    for places in combinations(range(len(encoded)), min(2, len(encoded)) or 1):
        # Numbers instead of texts: CelebA has 741 pairs of attributes.
        keys = np.stack([encoded[place][1] for place in places])
        shape = [len(encoded[place][0]) for place in places]
        found, groups = np.unique(np.ravel_multi_index(list(keys), shape), return_inverse=True)
        name = " × ".join(images.attributes[place] for place in places)
        for key, (hits, totals) in zip(found, count_hits(images, groups), strict=True):
            if totals.sum() < MIN_IMAGES or totals.min() < MIN_PER_CLASS:
                small.append(int(totals.sum()))
                continue
            value = (encoded[place][0][code] for place, code in zip(places, np.unravel_index(key, shape), strict=True))
            rows.append(measure_group(name, " × ".join(value), hits, totals))
    rows.sort(key=lambda row: (_balanced(row), row.attribute, row.value))
    alike = [row for row in rows if row.attribute == rows[0].attribute]
    if len(alike) < 2:
        return Groups(rows, len(small), sum(small))
    worst, best = alike[0], alike[-1]
    low, high = _bootstrap_gap(worst, best)
    return Groups(rows, len(small), sum(small), best, (_balanced(best) - _balanced(worst), low, high))


def _bootstrap_gap(worst: AttributeRow, best: AttributeRow, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the gap between two groups, images drawn anew within each class.

    The hits of such a draw are binomial. Half an image is added to right and wrong, so that a class without a mistake
    varies too. The two groups stay the same in every draw: taking the extremes of each draw instead covers a true gap
    less often, since noise alone moves the extremes apart.
    """
    rng = np.random.default_rng(seed)

    def draw(row: AttributeRow) -> NDArray[np.float64]:
        totals = np.array([total for total, *_ in row.recalls])
        hits = np.array([round(total * (recall or 0)) for total, recall, *_ in row.recalls])
        drawn = rng.binomial(totals, (hits + 0.5) / (totals + 1), (_BOOTSTRAPS, len(totals)))
        means: NDArray[np.float64] = (drawn / totals).mean(axis=1)
        return means

    low, high = np.quantile(draw(best) - draw(worst), [0.025, 0.975])
    return float(low), float(high)


def _balanced(row: AttributeRow) -> float:
    assert row.balanced_accuracy is not None
    return row.balanced_accuracy
