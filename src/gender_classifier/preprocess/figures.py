"""Figure of the splits."""

from collections.abc import Mapping

import numpy as np

from gender_classifier.common.figures import Figure, class_color, legend_name, own_style, start_figure


@own_style()
def split_balance(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw ``{split: {label: count}}`` as grouped bars with counts."""
    figure, axes = start_figure("Images per split after verification", width=6.4)
    labels = list(next(iter(counts.values())))
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        places = np.arange(len(counts)) + (number - (len(labels) - 1) / 2) * width
        heights = [split[label] for split in counts.values()]
        bars = axes.bar(places, heights, width * 0.95, color=class_color(number), label=legend_name(label))
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=2, rotation=90 * (len(labels) > 4))
    axes.set_xticks(np.arange(len(counts)), list(counts))
    axes.set_ylabel("images")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.12)
    if len(labels) > 2:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    else:
        axes.legend(frameon=False)
    return figure
