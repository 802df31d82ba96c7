"""Figures of the verification report."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.figures import (
    OK_COLOR,
    REJECTED_COLOR,
    Figure,
    MaxNLocator,
    own_style,
    shorten_names,
    start_figure,
)

_ROOM = 60  # characters, of all names side by side


@own_style()
def class_balance(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """Draw ``{split: {label: {ok, rejected}}}`` as stacked bars with counts."""
    figure, axes = start_figure("Images per split and class", width=6.4)
    names = [f"{split}/\n{label}" for split, labels in counts.items() for label in shorten_names(labels)]
    ok = [verdicts["ok"] for labels in counts.values() for verdicts in labels.values()]
    rejected = [verdicts["rejected"] for labels in counts.values() for verdicts in labels.values()]
    places = np.arange(len(names))
    axes.bar(places, ok, color=OK_COLOR, label="ok", width=0.6)
    axes.bar(places, rejected, bottom=ok, color=REJECTED_COLOR, label="rejected", width=0.6)
    is_crowded = len(names) > 6 or len(names) * max(len(name.split("\n")[1]) for name in names) > _ROOM
    for place, good, bad in zip(places, ok, rejected, strict=True):
        text = f"{good:,}" + (f"\n({bad:,} rejected)" if bad else "")
        axes.annotate(
            text,
            (place, good + bad),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            rotation=90 if is_crowded else 0,
        )
    if is_crowded:
        axes.set_xticks(places, [name.replace("\n", "") for name in names], rotation=45, ha="right")
    else:
        axes.set_xticks(places, names)
    axes.set_ylabel("images")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, max(np.add(ok, rejected), default=1) * (1.4 if is_crowded else 1.18) + 1)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


@own_style()
def image_sizes(widths: Sequence[int], heights: Sequence[int]) -> Figure:
    """Draw a histogram of widths and heights, in pixels."""
    middle = f", median {np.median(widths):.0f} × {np.median(heights):.0f} px" if len(widths) else ""
    figure, axes = start_figure(f"Sizes of {len(widths):,} decoded images{middle}", width=6.4)
    if len(widths):
        bins = _whole_bins(widths), _whole_bins(heights)
        drawn = axes.hist2d(widths, heights, bins=bins, cmin=1, cmap="viridis")[3]
        figure.colorbar(drawn, ax=axes, label="images", ticks=MaxNLocator(integer=True))
    axes.set_xlabel("width (px)")
    axes.set_ylabel("height (px)")
    return figure


def _whole_bins(sides: Sequence[int], *, most: int = 60) -> NDArray[np.floating]:
    """Return edges of bins that are all the same whole number of pixels wide: others show stripes."""
    low, high = min(sides), max(sides)
    width = (high - low) // most + 1
    return np.arange(low, max(high, low + 4 * width) + width + 1, width) - 0.5
