"""Figures of the report on the test set."""

from collections.abc import Mapping, Sequence
from typing import Any

from gender_classifier.common.figures import (
    MARK_COLOR,
    OK_COLOR,
    SHADES,
    TRAIN_COLOR,
    VAL_COLOR,
    Axes,
    Figure,
    MaxNLocator,
    NullFormatter,
    class_color,
    format_percent_tick,
    format_share,
    one_line,
    own_style,
    shorten_names,
    start_figure,
    tidy_axes,
)
from gender_classifier.metrics.calibration import ReliabilityBin
from gender_classifier.metrics.scores import wilson_interval

_CORNERS = (0.02, 0.05, 0.1, 0.2, 0.5)  # sides of the enlarged part of a ROC curve, from the upper left corner


_MOST_LINES = 40  # of a figure of attributes or groups: MLflow would shrink a taller one beyond reading
_SHORT = 17  # characters, of which four entries fit side by side in a legend
_LINE = 0.175  # inches, of a setting in the table of corruptions


@own_style()
def robustness(rows: Sequence[Mapping[str, Any]], test_accuracy: float, num_test: int) -> Figure:
    """Draw the accuracy of each corruption at its strengths, with 95 % intervals, a panel for each group.

    Args:
        rows: those of ``metrics/robustness.csv``, as mappings; the first is that of the clean images.
        test_accuracy: on the whole test set, of which the corrupted images are a part.
        num_test: images in the test set.
    """
    clean, count = rows[0]["accuracy"], rows[0]["n"]
    groups = {group: [row for row in rows[1:] if row["group"] == group] for group in _list_values(rows[1:], "group")}
    chosen = f"{count:,} of its {num_test:,} images" if count < num_test else f"all {num_test:,} images"
    lines = [len(members) for members in groups.values()]
    figure = Figure(figsize=(7.2, 1.2 + 0.35 * len(groups) + _LINE * sum(lines)), layout="constrained")
    figure.suptitle(f"Accuracy on the test set, corrupted: {chosen} (95 % intervals)", fontsize=10.5)
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=lines)[:, 0]
    for axes, (group, members) in zip(panels, groups.items(), strict=True):
        tidy_axes(axes)
        axes.set_title(group, fontsize=10, loc="left")
        _draw_corruptions(axes, members)
        axes.axvline(clean, color=MARK_COLOR, linestyle=":", label=f"the same images, clean: {format_share(clean)}")
        if count < num_test:
            label = f"whole test set, clean: {format_share(test_accuracy)}"
            axes.axvline(test_accuracy, color=OK_COLOR, linestyle="--", linewidth=1, label=label)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(format_percent_tick)
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.005))
    axes.set_xlabel("accuracy")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_corruptions(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a line for each row of a group, with accuracy and setting beside it."""
    names = [row["corruption"] for row in rows]
    for place, row in enumerate(rows):
        error = [[row["accuracy"] - row["accuracy_low"]], [row["accuracy_high"] - row["accuracy"]]]
        color = SHADES[row["strength"] - 1] if names.count(row["corruption"]) > 1 else SHADES[-1]
        axes.errorbar(row["accuracy"], place, xerr=error, fmt="o", color=color, markersize=4, capsize=2)
        beside = f"{format_share(row['accuracy'])}  {row['setting']}"
        axes.text(1.02, place, beside, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
        if place and names[place] != names[place - 1]:
            axes.axhline(place - 0.5, color=MARK_COLOR, linewidth=0.3, alpha=0.4)
    middles = [names.index(name) + (names.count(name) - 1) / 2 for name in _list_values(rows, "corruption")]
    axes.set_yticks(middles, _list_values(rows, "corruption"))
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _list_values(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


@own_style()
def attribute_table(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], title: str) -> Figure:
    """Draw accuracy and the recall of each class with 95 % intervals, a line an attribute's value; the first is all.

    Args:
        rows: those of ``evaluate.extra.attributes``, as mappings; of more than 40 values, the worst are drawn.
        classes: whose recalls.
        title: of the figure.
    """
    # By the upper end of the interval: a value of one image that is wrong says little.
    worst = sorted(range(1, len(rows)), key=lambda place: rows[place]["accuracy_high"])[:_MOST_LINES]
    count = f", the worst {_MOST_LINES} of {len(rows) - 1} values" if len(worst) < len(rows) - 1 else ""
    rows = [rows[place] for place in (0, *sorted(worst))]
    figure, axes = start_figure(
        f"{one_line(title, 40)}, by attribute{count} (95 % intervals)",
        width=7.2,
        height=1.5 + max(0.42, 0.14 * (len(classes) + 1)) * len(rows),
    )
    spans = [("accuracy", [(row["accuracy"], row["accuracy_low"], row["accuracy_high"]) for row in rows])]
    for place, name in enumerate(shorten_names(classes)):
        spans.append((f"recall of {name}", [row["recalls"][place][1:] for row in rows]))
    colors = [MARK_COLOR, *map(class_color, range(len(classes)))]
    lowest, step = 1.0, min(0.22, 0.8 / len(spans))
    for number, ((name, triples), color) in enumerate(zip(spans, colors, strict=True)):
        shift = (number - (len(spans) - 1) / 2) * step
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
    axes.xaxis.set_major_formatter(format_percent_tick)
    axes.set_xlabel("accuracy, recall")
    columns = 4 if max(len(name) for name, _ in spans) <= _SHORT else 2
    figure.legend(loc="outside lower center", ncols=min(len(spans), columns), frameon=False, fontsize=9)
    return figure


@own_style()
def group_table(rows: Sequence[Mapping[str, Any]], title: str, gap: tuple[float, float, float]) -> Figure:
    """Draw the balanced accuracy of each group with its 95 % interval, the worst first, its number of images beside it.

    Args:
        rows: those of ``evaluate.extra.groups``, as mappings; of more than 40, the worst are drawn.
        title: of the figure.
        gap: between the best and the worst group, with its 95 % interval.
    """
    shown = rows[:_MOST_LINES]
    count = f"{len(rows)} groups" if len(shown) == len(rows) else f"the worst {len(shown)} of {len(rows)} groups"
    difference, low, high = (f"{100 * value:.1f}" for value in gap)
    figure, axes = start_figure(
        f"{one_line(title, 40)}, {count} (95 % intervals)\nbest to worst: {difference} points ({low} to {high})",
        width=7.2,
        height=1.4 + 0.27 * len(shown),
    )
    axes.title.set_fontsize(10.5)
    values = [row["balanced_accuracy"] for row in shown]
    below = [row["balanced_accuracy"] - row["balanced_accuracy_low"] for row in shown]
    above = [row["balanced_accuracy_high"] - row["balanced_accuracy"] for row in shown]
    axes.errorbar(values, range(len(shown)), xerr=(below, above), fmt="o", color=TRAIN_COLOR, markersize=4, capsize=2)
    for place, row in enumerate(shown):
        beside = f"{format_share(row['balanced_accuracy'])}  n {row['n']:,}"
        axes.text(1.02, place, beside, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    several = len(_list_values(rows, "attribute")) > 1
    names = [f"{row['attribute']}: {row['value']}" if several else row["value"] for row in shown]
    axes.set_yticks(range(len(shown)), [one_line(name, 44) for name in names], fontsize=9)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.005))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(format_percent_tick)
    axes.set_xlabel("balanced accuracy")
    return figure


@own_style()
def roc_curve(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], area: float, operating: tuple[float, float]
) -> Figure:
    """Draw ROC curves, and beside them the corner in which the model works.

    Args:
        curves: points of ``metrics.curves.roc_points`` by positive class: one of two classes, or all of more.
        area: under the curve, or the mean of several.
        operating: false and true positive rate where the likeliest class is taken.
    """
    names = shorten_names(curves)
    what = f"positive class: {names[0]}, area" if len(names) == 1 else "each class against the rest, mean area"
    figure = Figure(figsize=(7.6, 4.4 + 0.25 * (len(names) // 3)), layout="constrained")
    figure.suptitle(f"ROC, {what} {area:.4f}", fontsize=11)
    miss = max(operating[0], 1 - operating[1])
    views = [("Whole curve", 1.0)]
    views += [("Upper left corner, enlarged", side) for side in _CORNERS if miss <= side / 2][:1]
    taken = f"likeliest class: {format_share(operating[1])} found, {format_share(operating[0])} false alarms"
    for axes, (title, edge) in zip(figure.subplots(1, len(views), squeeze=False)[0], views, strict=True):
        axes.plot([0, 1], [0, 1], color=MARK_COLOR, linestyle=":", label="chance")
        for label, (name, points) in enumerate(zip(names, curves.values(), strict=True)):
            color, shown = (TRAIN_COLOR, "model") if len(names) == 1 else (class_color(label), name)
            axes.plot([point[0] for point in points], [point[1] for point in points], color=color, label=shown)
        axes.plot(*operating, color=VAL_COLOR, marker="o", linestyle="none", label=taken, zorder=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlim(0, edge)
        axes.set_ylim(1 - edge, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(format_percent_tick)
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_aspect("equal")
        tidy_axes(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


@own_style()
def reliability(bins: Sequence[ReliabilityBin], error: float, num_classes: int) -> Figure:
    """Draw accuracy against confidence with 95 % intervals, and below it how many images each bin holds.

    The axes begin at 1 / ``num_classes``: the likeliest class has no lower probability. That of the accuracy reaches
    down to the lowest interval.
    """
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.set_title(f"Reliability, expected calibration error {error:.2%} (95 % intervals)", fontsize=11)
    low = 1 / num_classes
    upper.plot([low, 1], [low, 1], color=MARK_COLOR, linestyle=":", label="perfectly calibrated")
    confidence, accuracy = [one.confidence for one in bins], [one.accuracy for one in bins]
    spans = [wilson_interval(round(one.accuracy * one.count), one.count) for one in bins]
    # Rounding may put a bound on the wrong side of an accuracy of 0 or 1.
    below = [max(value - bound, 0) for value, (bound, _) in zip(accuracy, spans, strict=True)]
    above = [max(bound - value, 0) for value, (_, bound) in zip(accuracy, spans, strict=True)]
    upper.errorbar(confidence, accuracy, (below, above), fmt="o", color=TRAIN_COLOR, capsize=2, label="model")
    upper.set_ylim(max(min([low, *accuracy, *(bound for bound, _ in spans)]) - 0.03, -0.02), 1.02)
    upper.yaxis.set_major_formatter(format_percent_tick)
    upper.set_ylabel("accuracy of the bin")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    widths = [one.bin_high - one.bin_low for one in bins]
    counts = [one.count for one in bins]
    bars = lower.bar([one.bin_low for one in bins], counts, widths, align="edge", color=TRAIN_COLOR, alpha=0.6)
    for one, bar in zip(bins, bars, strict=True):
        middle = (max(one.bin_low, low) + one.bin_high) / 2
        lower.annotate(
            f"{one.count:,}", (middle, bar.get_height()), (0, 2), textcoords="offset points", ha="center", fontsize=8
        )
    lower.set_yscale("log")
    lower.set_ylim(0.7, max(counts, default=1) * 5)
    lower.yaxis.set_major_formatter("{x:,.0f}")  # Matplotlib's own writes powers as formulas
    lower.yaxis.set_minor_formatter(NullFormatter())
    lower.set_ylabel("images (log)")
    lower.set_xlabel("confidence in the predicted class")
    lower.set_xlim(low, 1.005)
    lower.xaxis.set_major_formatter(format_percent_tick)
    for axes in (upper, lower):
        tidy_axes(axes)
    return figure
