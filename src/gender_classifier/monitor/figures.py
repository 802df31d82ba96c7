"""Figure of pairs of distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.figures import (
    TRAIN_COLOR,
    VAL_COLOR,
    Figure,
    format_percent_tick,
    name_classes,
    one_line,
    own_style,
    shorten_names,
    tidy_axes,
)


@dataclass(frozen=True)
class Panel:
    """Two histograms with the same bins: of numbers between ``edges``, or of ``categories``.

    ``counts`` has a name and int (B,) for each of the two.
    """

    title: str
    unit: str
    edges: NDArray[np.float64]
    categories: Sequence[str]
    counts: Mapping[str, NDArray[np.int64]]


@own_style()
def compare_histograms(panels: Sequence[Panel], title: str) -> Figure:
    """Overlay the two histograms of each panel, as shares."""
    columns = min(3, max(len(panels), 1))
    rows = max(-(-len(panels) // columns), 1)
    figure = Figure(figsize=(4 * columns, 3.5 * rows + 0.6), layout="constrained")
    figure.suptitle(one_line(title))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        edges, is_turned = _span_edges(panel), False
        for number, (name, counts) in enumerate(panel.counts.items()):
            label, color, total = f"{name}, {counts.sum():,} images", (TRAIN_COLOR, VAL_COLOR)[number], counts.sum()
            if panel.categories:
                places = np.arange(len(panel.categories)) + (number - 0.5) * 0.38
                axes.bar(places, counts / total, 0.36, color=color, label=label)
                is_turned = name_classes(axes, shorten_names(panel.categories), room=36)
            else:
                shares = np.diff(np.interp(edges, panel.edges, np.cumsum([0, *counts]) / total))
                axes.stairs(shares, edges, color=color, fill=not number, alpha=1 if number else 0.45, label=label)
        axes.set_title(panel.title, fontsize=10, pad=36 if is_turned else 6)
        axes.set_xlabel(panel.unit)
        axes.set_ylabel("share of the images")
        axes.yaxis.set_major_formatter(format_percent_tick)
        tidy_axes(axes)
        axes.set_ylim(0, min(axes.get_ylim()[1], 1))
        # Outside the panel, where there is room when one class has them all.
        place, anchor = ("lower center", (0.5, 1)) if is_turned else ("upper center", (0.5, -0.2))
        axes.legend(loc=place, bbox_to_anchor=anchor, frameon=False, fontsize=8)
    return figure


def _span_edges(panel: Panel, *, most: int = 30) -> NDArray[np.float64]:
    """Return even edges over the range of all but a thousandth of the values, no finer than the widest bin there."""
    below = [np.cumsum([0, *counts]) / counts.sum() for counts in panel.counts.values()]
    first = min(int(np.searchsorted(shares, 0.001, side="right")) - 1 for shares in below)
    last = max(int(np.searchsorted(shares, 0.999)) for shares in below)
    low, high = float(panel.edges[first]), float(panel.edges[last])
    count = int(np.clip((high - low) / np.diff(panel.edges[first : last + 1]).max(), 1, most))
    edges: NDArray[np.float64] = np.linspace(low, high, count + 1)
    return edges
