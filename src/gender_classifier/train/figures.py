"""Figure of the training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from gender_classifier.common.figures import (
    MARK_COLOR,
    TRAIN_COLOR,
    VAL_COLOR,
    Figure,
    MaxNLocator,
    PercentFormatter,
    own_style,
    tidy_axes,
)


@own_style()
def curves(records: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Draw loss and accuracy of train and val against the epoch, the kept epoch marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in records]
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
        axes.set_title(name.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy_axes(axes)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[0].legend(frameon=False)
    return figure
