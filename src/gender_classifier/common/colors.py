"""Colours of the classes, the same in every figure and drawing."""

CLASS_COLORS = ("#CC79A7", "#0072B2", "#009E73", "#E69F00")
"""One colour per class, in turn: of Okabe and Ito's palette, which colour-blind people can tell apart."""
