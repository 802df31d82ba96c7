"""Figure of the training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from gender_classifier.common.figures import (
    MARK_COLOR,
    TRAIN_COLOR,
    VAL_COLOR,
    Figure,
    MaxNLocator,
    format_percent_tick,
    format_share,
    own_style,
    tidy_axes,
)

_LEAST_SPAN = 0.05  # of the accuracy's axis: a change of one image is no jump


@own_style()
def curves(records: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Draw loss and accuracy of train and val against the epoch; mark and name the kept epoch."""
    figure = Figure(figsize=(7.6, 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
    kept = next(record for record in records if record["epoch"] == best_epoch)
    units = {"loss": "cross entropy per image (nats)", "accuracy": "accuracy"}
    for axes, (name, unit) in zip(panels, units.items(), strict=True):
        for split, color, text in (
            ("train", TRAIN_COLOR, "train (running, augmented)"),
            ("val", VAL_COLOR, "validation"),
        ):
            values = [record[f"{split}_{name}"] for record in records]
            axes.plot(epochs, values, color=color, marker="o", markersize=3, label=text)
        axes.axvline(best_epoch, color=MARK_COLOR, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        tidy_axes(axes)
    panels[0].set_title(f"Loss: {kept['val_loss']:.4f} on validation", fontsize=11)
    panels[1].set_title(f"Accuracy: {format_share(kept['val_accuracy'])} on validation", fontsize=11)
    low, high = panels[1].get_ylim()
    if high - low < _LEAST_SPAN:
        middle, half = (low + high) / 2, _LEAST_SPAN / 2
        middle = min(max(middle, half), 1 - half)
        margin = 0.05 * _LEAST_SPAN  # so that a point at 100 % is whole
        panels[1].set_ylim(middle - half - margin, middle + half + margin)
    panels[1].yaxis.set_major_formatter(format_percent_tick)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
