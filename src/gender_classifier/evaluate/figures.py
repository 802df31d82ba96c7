"""Figures of the report on the test set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gender_classifier.common.figures import (
    CLASS_COLORS,
    MARK_COLOR,
    MAX_CLASS_NAME,
    SHADES,
    TRAIN_COLOR,
    Figure,
    MaxNLocator,
    NullFormatter,
    one_line,
    own_style,
    shorten_names,
    start_figure,
    tidy_axes,
)
from gender_classifier.metrics.calibration import ReliabilityBin


@own_style()
def robustness(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the accuracy of each corruption at its strengths; the first of ``rows`` is that of the clean images."""
    clean, names = rows[0]["accuracy"], list(dict.fromkeys(row["corruption"] for row in rows[1:]))
    figure, axes = start_figure("Accuracy on corrupted test images, three strengths each", width=7.6, height=5.2)
    left = max(0.0, np.floor(min(row["accuracy"] for row in rows) * 10 - 0.3) / 10)
    for row in rows[1:]:
        place = names.index(row["corruption"]) + (row["strength"] - 2) * 0.26
        axes.barh(place, row["accuracy"] - left, height=0.24, left=left, color=SHADES[row["strength"] - 1])
        axes.text(1.01, place, f"{row['accuracy']:.3f}  {row['setting']}", va="center", fontsize=6.5)
    axes.axvline(clean, color=MARK_COLOR, linestyle=":")
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
    figure, axes = start_figure(
        f"{one_line(title)}, by attribute (95 % intervals)", width=7.6, height=1.5 + 0.42 * len(rows)
    )
    spans = [("accuracy", [(row["accuracy"], row["accuracy_low"], row["accuracy_high"]) for row in rows])]
    for place, name in enumerate(shorten_names(classes)):
        spans.append((f"recall of {name}", [row["recalls"][place][1:] for row in rows]))
    lowest = 1.0
    for number, ((name, triples), color) in enumerate(zip(spans, (MARK_COLOR, *CLASS_COLORS), strict=False)):
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
    axes.axvline(rows[0]["accuracy"], color=MARK_COLOR, linestyle=":", linewidth=1)
    axes.axhline(0.5, color=MARK_COLOR, linewidth=0.6)
    names = [one_line(f"{row['attribute']}: {row['value']}".removesuffix(": "), 40) for row in rows]
    axes.set_yticks(range(len(rows)), [f"{name}  (n {row['n']:,})" for name, row in zip(names, rows, strict=True)])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(max(0.0, lowest - 0.02), 1.005)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel("accuracy, recall (fraction)")
    figure.legend(loc="outside lower center", ncols=len(spans), frameon=False, fontsize=9)
    return figure


@own_style()
def roc_curve(points: Sequence[tuple[float, float, float]], area: float, positive: str) -> Figure:
    """Draw the ROC curve with its area, ``positive`` being the class whose probability is the score."""
    figure, axes = start_figure(f"ROC, positive class: {one_line(positive, MAX_CLASS_NAME)}", width=5)
    axes.plot([0, 1], [0, 1], color=MARK_COLOR, linestyle=":", label="chance")
    false_positive, true_positive = [point[0] for point in points], [point[1] for point in points]
    axes.plot(false_positive, true_positive, color=TRAIN_COLOR, label=f"area {area:.4f}")
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
    upper.plot([low, 1], [low, 1], color=MARK_COLOR, linestyle=":", label="perfectly calibrated")
    confidence, accuracy = [one.confidence for one in bins], [one.accuracy for one in bins]
    upper.plot(confidence, accuracy, color=TRAIN_COLOR, marker="o", label="model")
    upper.set_ylabel("accuracy of the bin")
    upper.legend(frameon=False)
    widths = [one.bin_high - one.bin_low for one in bins]
    lower.bar(
        [one.bin_low for one in bins], [one.count for one in bins], widths, align="edge", color=TRAIN_COLOR, alpha=0.6
    )
    lower.set_yscale("log")
    lower.yaxis.set_major_formatter("{x:,.0f}")  # Matplotlib's own writes powers as formulas
    lower.yaxis.set_minor_formatter(NullFormatter())
    lower.set_ylabel("images (log)")
    lower.set_xlabel("confidence in the predicted class")
    for axes in (upper, lower):
        tidy_axes(axes)
    return figure
