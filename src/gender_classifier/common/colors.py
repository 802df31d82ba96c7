"""Colours of the classes, the same in every figure and drawing."""

import colorsys

_PALETTE = ("#CC79A7", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#56B4E9", "#444444")
"""Okabe and Ito's colours that show on white, which colour-blind readers can tell apart."""

_GOLDEN = 0.618034  # of the colour circle: successive hues stay far apart, however many there are


def class_color(label: int) -> str:
    """Return the colour of a class as ``#RRGGBB``."""
    if label < len(_PALETTE):
        return _PALETTE[label]
    hue = (label - len(_PALETTE)) * _GOLDEN % 1
    red, green, blue = (round(255 * channel) for channel in colorsys.hls_to_rgb(hue, 0.4, 0.6))
    return f"#{red:02X}{green:02X}{blue:02X}"
