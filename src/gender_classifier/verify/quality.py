"""Image quality: scores of each image, and flags for those beyond the thresholds of ``verify.quality``."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gender_classifier.common.artifacts import Table
from gender_classifier.data.manifest import Record
from gender_classifier.verify.params import FLAGS, QualityParams


class Quality(NamedTuple):
    """Scores of one image.

    Those of brightness, entropy and shape are cleanvision's (https://github.com/cleanlab/cleanvision), of the luma of
    ITU-R BT.601, which is Pillow's mode ``L``: for grey images the two agree to a grey level.

    Attributes:
        highlight: brightness that 99 % of the pixels do not exceed, 0 (black) to 1 (white).
        shadow: brightness that 5 % of the pixels do not exceed.
        sharpness: root mean square of the Laplacian over the standard deviation, both of the grey image at 64 x 64.
            The energy of the Laplacian is a common measure of focus (Pertuz et al., "Analysis of focus measure
            operators for shape-from-focus", 2013); divided by the contrast, it does not take a pale image for a blurred
            one. 0 for a plain colour, 4.5 for white noise.
        entropy: of the histogram of grey levels, 0 to 8 bits.
        aspect_ratio: short side over long side.
    """

    highlight: float
    shadow: float
    sharpness: float
    entropy: float
    aspect_ratio: float


_RULES = {
    "too_dark": ("highlight", "min_highlight"),
    "too_light": ("shadow", "max_shadow"),
    "blurred": ("sharpness", "min_sharpness"),
    "low_information": ("entropy", "min_entropy"),
    "odd_shape": ("aspect_ratio", "min_aspect_ratio"),
}
"""Flag to its score and its threshold."""


@dataclass(frozen=True)
class Flagged:
    """One flag of an image.

    Attributes:
        flag: one of :data:`~gender_classifier.verify.params.FLAGS`.
        score: that is beyond the threshold.
        excess: its distance from the threshold.
    """

    flag: str
    score: float
    excess: float


def measure_quality(grey: Image.Image, shrunk: NDArray[np.float64]) -> Quality:
    """Return the scores of an image.

    Args:
        grey: the image in mode ``L``; transparency is ignored.
        shrunk: the same at 64 x 64, from :func:`~gender_classifier.data.images.shrink_grey`.
    """
    counts = list(accumulate(grey.histogram()))
    highlight, shadow = (bisect_left(counts, share * counts[-1]) / 255 for share in (0.99, 0.05))
    return Quality(highlight, shadow, _measure_sharpness(shrunk), grey.entropy(), min(grey.size) / max(grey.size))


def find_flags(quality: Quality, limits: QualityParams) -> tuple[Flagged, ...]:
    """Return the flags of an image, in the order of :data:`~gender_classifier.verify.params.FLAGS`."""
    found = []
    for flag, (score_name, limit_name) in _RULES.items():
        score, limit = getattr(quality, score_name), getattr(limits, limit_name)
        excess = limit - score if limit_name.startswith("min_") else score - limit
        if excess > 0:
            found.append(Flagged(flag, score, excess))
    return tuple(found)


@dataclass(frozen=True)
class QualityTable:
    """Quality of all images that could be decoded.

    Attributes:
        scores: of each member of the archive.
        flags: of each member that has any.
    """

    scores: dict[str, Quality]
    flags: dict[str, tuple[Flagged, ...]]

    def count(self) -> dict[str, int]:
        """Return the number of images with each flag, zeros included."""
        counts = Counter(found.flag for flags in self.flags.values() for found in flags)
        return {flag: counts[flag] for flag in FLAGS}

    def tabulate(self) -> Table:
        """Return a row per image: its scores, with four decimals, and its flags."""
        names = {member: " ".join(found.flag for found in flags) for member, flags in self.flags.items()}
        rows = (
            [member, *(f"{score:.4f}" for score in scores), names.get(member, "")]
            for member, scores in self.scores.items()
        )
        return Table(["member", *Quality._fields, "flags"], rows)

    def pick_worst(self, most: int) -> Sequence[tuple[str, Flagged]]:
        """Return at most ``most`` flagged images with a flag: grouped by flag, in each group the worst first.

        The flags share the places evenly as far as they have images. An image with several comes under the first.
        """
        groups: dict[str, list[tuple[str, Flagged]]] = {flag: [] for flag in FLAGS}
        for member, flags in self.flags.items():
            groups[flags[0].flag].append((member, flags[0]))
        ranked = [
            (rank, number, found)
            for number, group in enumerate(groups.values())
            for rank, found in enumerate(sorted(group, key=lambda flagged: (-flagged[1].excess, flagged[0])))
        ]
        chosen = sorted(ranked, key=lambda place: place[:2])[:most]
        return [found for _, _, found in sorted(chosen, key=lambda place: (place[1], place[0]))]


def assess(
    inspected: Iterable[tuple[Record, Quality | None]], limits: QualityParams
) -> tuple[list[Record], QualityTable]:
    """Flag the images whose scores are beyond the thresholds.

    Args:
        inspected: of each image its record, and its quality or None if it cannot be decoded.
        limits: the thresholds, and the flags that reject.

    Returns:
        The records, those with a flag in ``limits.reject`` rejected for it, and the quality of the images.
    """
    records, table = list[Record](), QualityTable({}, {})
    for record, quality in inspected:
        flags: tuple[Flagged, ...] = ()
        if quality is not None:
            table.scores[record.member] = quality
            flags = find_flags(quality, limits)
        if flags:
            table.flags[record.member] = flags
        reason = next((found.flag for found in flags if found.flag in limits.reject), None)
        records.append(replace(record, status="rejected", reason=reason) if reason else record)
    return records, table


def _measure_sharpness(pixels: NDArray[np.float64]) -> float:
    """Return :attr:`Quality.sharpness` of whole grey levels, whose sums are exact in float64 in any order."""
    laplacian = 4 * pixels[1:-1, 1:-1] - pixels[:-2, 1:-1] - pixels[2:, 1:-1] - pixels[1:-1, :-2] - pixels[1:-1, 2:]
    total = pixels.sum()
    variance = (pixels.size * np.vdot(pixels, pixels) - total * total) / pixels.size**2
    return math.sqrt(np.vdot(laplacian, laplacian) / laplacian.size / variance) if variance > 0 else 0.0
