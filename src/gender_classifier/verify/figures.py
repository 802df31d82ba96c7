"""Figures of the verification report."""

from collections.abc import Mapping, Sequence

import numpy as np

from gender_classifier.common.figures import (
    OK_COLOR,
    REJECTED_COLOR,
    VAL_COLOR,
    Figure,
    own_style,
    shorten_names,
    start_figure,
)


@own_style()
def class_balance(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """Draw ``{split: {label: {ok, rejected}}}`` as stacked bars with counts."""
    figure, axes = start_figure("Images per class folder", width=6.4)
    names = [f"{split}/\n{label}" for split, labels in counts.items() for label in shorten_names(labels)]
    ok = [verdicts["ok"] for labels in counts.values() for verdicts in labels.values()]
    rejected = [verdicts["rejected"] for labels in counts.values() for verdicts in labels.values()]
    places = np.arange(len(names))
    axes.bar(places, ok, color=OK_COLOR, label="ok", width=0.6)
    axes.bar(places, rejected, bottom=ok, color=REJECTED_COLOR, label="rejected", width=0.6)
    for place, good, bad in zip(places, ok, rejected, strict=True):
        text = f"{good:,}" + (f"\n({bad:,} rejected)" if bad else "")
        axes.annotate(text, (place, good + bad), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(places, names)
    axes.set_ylabel("images")
    axes.set_ylim(0, max(np.add(ok, rejected), default=1) * 1.18 + 1)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


@own_style()
def image_sizes(widths: Sequence[int], heights: Sequence[int]) -> Figure:
    """Draw a histogram of widths and heights, in pixels."""
    figure, axes = start_figure(f"Sizes of {len(widths):,} decoded images", width=6.4)
    if len(widths):
        # One bin per pixel, but at most 60.
        bins = tuple(int(min(max(np.ptp(side) + 1, 5), 60)) for side in (widths, heights))
        drawn = axes.hist2d(widths, heights, bins=bins, cmin=1, cmap="viridis")[3]
        figure.colorbar(drawn, ax=axes, label="images")
        middle = (float(np.median(widths)), float(np.median(heights)))
        axes.plot(*middle, marker="+", markersize=14, markeredgewidth=2, color=VAL_COLOR, linestyle="none")
        axes.annotate(f"median {middle[0]:.0f} × {middle[1]:.0f}", middle, (8, 8), textcoords="offset points",
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip
    axes.set_xlabel("width (px)")
    axes.set_ylabel("height (px)")
    return figure
