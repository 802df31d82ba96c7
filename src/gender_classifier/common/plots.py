"""Figures of the reports: one function each, drawn in the project's own style under any Matplotlib settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.figures import one_line, own_style  # before Matplotlib, whose import it guards
from gender_classifier.common.files import replacing

# isort: split
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

if TYPE_CHECKING:
    from gender_classifier.metrics.calibration import ReliabilityBin

# Okabe & Ito's colours, told apart by the colour-blind.
_TRAIN, _VAL, _MARK = "#0072B2", "#D55E00", "#555555"
_OK, _REJECTED = "#009E73", "#D55E00"
_LABELS = ("#CC79A7", "#0072B2", "#009E73", "#E69F00")  # a colour a class
_SHADES = ("#9ECAE1", "#4292C6", "#08519C")  # light to strong
_DPI = 120
_CLASS_NAME, _CAPTION, _CAPTION_LINES = 16, 28, 4  # most characters that have room, and most lines


@own_style()
def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG, whole or not at all; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None}, backend="agg")


@own_style()
def robustness(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the accuracy of each corruption at its strengths; the first of ``rows`` is that of the clean images."""
    clean, names = rows[0]["accuracy"], list(dict.fromkeys(row["corruption"] for row in rows[1:]))
    figure, axes = _start("Accuracy on corrupted test images, three strengths each", width=7.6, height=5.2)
    left = max(0.0, np.floor(min(row["accuracy"] for row in rows) * 10 - 0.3) / 10)
    for row in rows[1:]:
        place = names.index(row["corruption"]) + (row["strength"] - 2) * 0.26
        axes.barh(place, row["accuracy"] - left, height=0.24, left=left, color=_SHADES[row["strength"] - 1])
        axes.text(1.01, place, f"{row['accuracy']:.3f}  {row['setting']}", va="center", fontsize=6.5)
    axes.axvline(clean, color=_MARK, linestyle=":")
    axes.annotate(f"clean {clean:.3f}", (clean, -0.75), (-3, 0), textcoords="offset points", ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -1)
    axes.set_xlim(left, 1 + (1 - left) * 0.5)
    ticks = MaxNLocator(6).tick_values(left, 1)
    axes.set_xticks([tick for tick in ticks if left <= tick <= 1])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy (fraction)")
    return figure


@own_style()
def attribute_table(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], title: str) -> Figure:
    """Draw accuracy and the recall of each class with 95 % intervals, a line an attribute's value; the first is all.

    Args:
        rows: those of ``labelled_sets.tabulate_attributes``, as mappings.
        classes: whose recalls.
        title: of the figure.
    """
    figure, axes = _start(f"{one_line(title)}, by attribute (95 % intervals)", width=7.6, height=1.5 + 0.42 * len(rows))
    spans = [("accuracy", [(row["accuracy"], row["accuracy_low"], row["accuracy_high"]) for row in rows])]
    for place, name in enumerate(_shorten(classes)):
        spans.append((f"recall of {name}", [row["recalls"][place][1:] for row in rows]))
    lowest = 1.0
    for number, ((name, triples), color) in enumerate(zip(spans, (_MARK, *_LABELS), strict=False)):
        shift = (number - (len(spans) - 1) / 2) * 0.22
        drawn = [
            (place + shift, value, value - low, high - value)
            for place, (value, low, high) in enumerate(triples)
            if value is not None  # the class has no image there
        ]
        if not drawn:
            continue
        lowest = min(lowest, *(value - below for _, value, below, _ in drawn))
        places, values, below, above = zip(*drawn, strict=True)
        axes.errorbar(values, places, xerr=(below, above), fmt="o", color=color, label=name, markersize=4, capsize=2)
    axes.axvline(rows[0]["accuracy"], color=_MARK, linestyle=":", linewidth=1)
    axes.axhline(0.5, color=_MARK, linewidth=0.6)
    names = [one_line(f"{row['attribute']}: {row['value']}".removesuffix(": "), 40) for row in rows]
    axes.set_yticks(range(len(rows)), [f"{name}  (n {row['n']:,})" for name, row in zip(names, rows, strict=True)])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(max(0.0, lowest - 0.02), 1.005)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel("accuracy, recall (fraction)")
    figure.legend(loc="outside lower center", ncols=len(spans), frameon=False, fontsize=9)
    return figure


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
    """Draw each panel's two histograms over one another, as shares."""
    columns = min(3, max(len(panels), 1))
    rows = max(-(-len(panels) // columns), 1)
    figure = Figure(figsize=(4 * columns, 3.1 * rows + 0.9), layout="constrained")
    figure.suptitle(one_line(title))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        edges = _span_edges(panel)
        for number, (name, counts) in enumerate(panel.counts.items()):
            label, color, total = f"{name}, {counts.sum():,} images", (_TRAIN, _VAL)[number], counts.sum()
            if panel.categories:
                places = np.arange(len(panel.categories)) + (number - 0.5) * 0.38
                axes.bar(places, counts / total, 0.36, color=color, label=label)
                axes.set_xticks(range(len(panel.categories)), _shorten(panel.categories))
            else:
                shares = np.diff(np.interp(edges, panel.edges, np.cumsum([0, *counts]) / total))
                axes.stairs(shares, edges, color=color, fill=not number, alpha=1 if number else 0.45, label=label)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.unit)
        axes.set_ylabel("share of the images")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _tidy(axes)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
        axes.legend(frameon=False, fontsize=8)
    return figure


def _span_edges(panel: Panel, *, most: int = 30) -> NDArray[np.float64]:
    """Return even edges over what all but a thousandth of either's values span, no finer than the widest bin there."""
    below = [np.cumsum([0, *counts]) / counts.sum() for counts in panel.counts.values()]
    first = min(int(np.searchsorted(one, 0.001, side="right")) - 1 for one in below)
    last = max(int(np.searchsorted(one, 0.999)) for one in below)
    low, high = float(panel.edges[first]), float(panel.edges[last])
    count = int(np.clip((high - low) / np.diff(panel.edges[first : last + 1]).max(), 1, most))
    edges: NDArray[np.float64] = np.linspace(low, high, count + 1)
    return edges


@own_style()
def class_balance(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """Draw ``{split: {label: {ok, rejected}}}`` as stacked bars with their numbers."""
    figure, axes = _start("Images per class folder", width=6.4)
    names = [f"{split}/\n{label}" for split, labels in counts.items() for label in _shorten(labels)]
    ok = [verdicts["ok"] for labels in counts.values() for verdicts in labels.values()]
    rejected = [verdicts["rejected"] for labels in counts.values() for verdicts in labels.values()]
    places = np.arange(len(names))
    axes.bar(places, ok, color=_OK, label="ok", width=0.6)
    axes.bar(places, rejected, bottom=ok, color=_REJECTED, label="rejected", width=0.6)
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
    """Draw how wide and how high the images are, in pixels."""
    figure, axes = _start(f"Sizes of {len(widths):,} decoded images", width=6.4)
    if len(widths):
        # A bin a pixel where there are few different sizes, 60 bins otherwise.
        bins = tuple(int(min(max(np.ptp(side) + 1, 5), 60)) for side in (widths, heights))
        drawn = axes.hist2d(widths, heights, bins=bins, cmin=1, cmap="viridis")[3]
        figure.colorbar(drawn, ax=axes, label="images")
        middle = (float(np.median(widths)), float(np.median(heights)))
        axes.plot(*middle, marker="+", markersize=14, markeredgewidth=2, color=_VAL, linestyle="none")
        axes.annotate(f"median {middle[0]:.0f} × {middle[1]:.0f}", middle, (8, 8), textcoords="offset points",
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip
    axes.set_xlabel("width (px)")
    axes.set_ylabel("height (px)")
    return figure


@own_style()
def split_balance(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw ``{split: {label: count}}`` as grouped bars with their numbers."""
    figure, axes = _start("Images per split after verification", width=6.4)
    labels = list(next(iter(counts.values())))
    width = 0.8 / len(labels)
    for number, (label, color) in enumerate(zip(labels, _LABELS, strict=False)):
        places = np.arange(len(counts)) + (number - (len(labels) - 1) / 2) * width
        heights = [split[label] for split in counts.values()]
        bars = axes.bar(places, heights, width * 0.95, color=color, label=_name_in_legend(label))
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=2)
    axes.set_xticks(np.arange(len(counts)), list(counts))
    axes.set_ylabel("images")
    axes.margins(y=0.12)
    axes.legend(frameon=False)
    return figure


@own_style()
def contact_sheet(
    images: Sequence[NDArray[np.uint8] | None], captions: Sequence[str], title: str, *, columns: int = 8
) -> Figure:
    """Lay out pictures, uint8 (H, W, 3) of any size or None for what cannot be decoded, with a caption below each."""
    columns = min(columns, max(len(images), 4))
    rows = max(-(-len(images) // columns), 1)
    width, height = max(1.45 * columns, 4), 1.95 * rows + 0.6
    # A layout of our own: to find one for dozens of panels takes Matplotlib longer than to draw them.
    figure = Figure(figsize=(width, height))
    figure.suptitle(one_line(title), fontsize=11, y=1 - 0.1 / height, va="top")
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.55 / height, "top": 1 - 0.45 / height}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**edges, "wspace": 0.12, "hspace": 0.42})
    for axes in grid.flat:
        axes.set_axis_off()
    if not len(images):
        grid[0, 0].text(0.5, 0.5, "none", ha="center", va="center", color=_MARK)
    for axes, image, caption in zip(grid.flat, images, captions, strict=False):
        if image is None:
            axes.imshow(np.full((4, 4, 3), 225, np.uint8))
            axes.text(0.5, 0.5, "cannot be\ndecoded", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        else:
            axes.imshow(image, interpolation="nearest")
        text = "\n".join(one_line(line, _CAPTION) for line in caption.split("\n")[:_CAPTION_LINES])
        axes.text(0.5, -0.04, text, fontsize=7, ha="center", va="top", transform=axes.transAxes)
    return figure


@own_style()
def curves(records: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Draw loss and accuracy of train and val against the epoch, the kept epoch marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
    units = {"loss": "cross entropy per image (nats)", "accuracy": "accuracy"}
    for axes, (name, unit) in zip(panels, units.items(), strict=True):
        for split, color, text in (("train", _TRAIN, "train (running, augmented)"), ("val", _VAL, "validation")):
            values = [record[f"{split}_{name}"] for record in records]
            axes.plot(epochs, values, color=color, marker="o", markersize=3, label=text)
        axes.axvline(best_epoch, color=_MARK, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.set_title(name.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(axes)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[0].legend(frameon=False)
    return figure


@own_style()
def confusion_matrix(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Draw counts, and beside them the share of each actual class; confusion (C, C), rows actual."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    figure.suptitle(f"{one_line(title)}: {confusion.sum():,} images")
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    panels = figure.subplots(1, 2)
    _draw_matrix(panels[0], shares, [[f"{count:,}" for count in row] for row in confusion], classes, "Counts")
    texts = [[f"{share:.1%}" for share in row] for row in shares]
    _draw_matrix(panels[1], shares, texts, classes, "Share of the actual class (diagonal: recall)")
    return figure


@own_style()
def roc_curve(points: Sequence[tuple[float, float, float]], area: float, positive: str) -> Figure:
    """Draw the ROC curve with its area, ``positive`` being the class whose probability is the score."""
    figure, axes = _start(f"ROC, positive class: {one_line(positive, _CLASS_NAME)}", width=5)
    axes.plot([0, 1], [0, 1], color=_MARK, linestyle=":", label="chance")
    false_positive, true_positive = [point[0] for point in points], [point[1] for point in points]
    axes.plot(false_positive, true_positive, color=_TRAIN, label=f"area {area:.4f}")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", frameon=False)
    return figure


@own_style()
def reliability(bins: Sequence[ReliabilityBin], error: float) -> Figure:
    """Draw accuracy against confidence, and below it how many images each bin holds."""
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.set_title(f"Reliability, expected calibration error {error:.2%}")
    low = min((one.bin_low for one in bins), default=0.0)
    upper.plot([low, 1], [low, 1], color=_MARK, linestyle=":", label="perfectly calibrated")
    confidence, accuracy = [one.confidence for one in bins], [one.accuracy for one in bins]
    upper.plot(confidence, accuracy, color=_TRAIN, marker="o", label="model")
    upper.set_ylabel("accuracy of the bin")
    upper.legend(frameon=False)
    widths = [one.bin_high - one.bin_low for one in bins]
    lower.bar([one.bin_low for one in bins], [one.count for one in bins], widths, align="edge", color=_TRAIN, alpha=0.6)
    lower.set_yscale("log")
    lower.yaxis.set_major_formatter("{x:,.0f}")  # Matplotlib's own writes powers as formulas
    lower.yaxis.set_minor_formatter(NullFormatter())
    lower.set_ylabel("images (log)")
    lower.set_xlabel("confidence in the predicted class")
    for axes in (upper, lower):
        _tidy(axes)
    return figure


def _start(title: str, width: float, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    _tidy(axes)
    return figure, axes


def _shorten(names: Iterable[str]) -> list[str]:
    return [one_line(name, _CLASS_NAME) for name in names]


def _name_in_legend(name: str) -> str:
    """Keep Matplotlib from hiding a label that begins with an underscore."""
    return (" " if name.startswith("_") else "") + one_line(name, _CLASS_NAME)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _draw_matrix(
    axes: Axes, shares: NDArray[np.float64], texts: Sequence[Sequence[str]], classes: Sequence[str], title: str
) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=13)
    names = _shorten(classes)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title, fontsize=10)
