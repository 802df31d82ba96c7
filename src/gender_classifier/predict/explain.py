"""Which parts of an image a prediction hangs on: cover each in turn, and see how far the probability falls.

Occlusion sensitivity, after Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014),
section 4.2. It needs the model's probabilities alone: no gradients, no torch.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CELLS = 8
"""A heat map has this many rows and columns; it costs CELLS x CELLS + 1 predictions."""

# The square that covers is this many times as wide as a cell: finer ones hide too little to change the answer.
_COVER = 2


def build_occlusions(image: NDArray[np.uint8], cells: int = CELLS) -> NDArray[np.uint8]:
    """Return the image itself, then one copy a cell, in rows, with a square about the cell's centre covered.

    The square has the image's mean colour: the least conspicuous one.

    Args:
        image: uint8 (S, S, 3), S at least ``cells``.
        cells: G, rows and columns of the grid.

    Returns:
        uint8 (1 + G * G, S, S, 3).
    """
    size = len(image)
    copies = np.repeat(image[None], 1 + cells * cells, axis=0)
    color = image.mean(axis=(0, 1)).round().astype(np.uint8)
    reach = _COVER * size / cells / 2
    for row in range(cells):
        for column in range(cells):
            middle = [(place + 0.5) * size / cells for place in (row, column)]
            rows, columns = (slice(max(0, round(at - reach)), min(size, round(at + reach))) for at in middle)
            copies[1 + row * cells + column, rows, columns] = color
    return copies


def compute_drops(probs: NDArray[np.float32], label: int, cells: int = CELLS) -> NDArray[np.float32]:
    """Return how far the probability of ``label`` falls with each cell covered; below zero where it rises.

    Args:
        probs: float32 (1 + G * G, C), of :func:`build_occlusions`.
        label: of the class looked at.
        cells: G.

    Returns:
        float32 (G, G), in [-1, 1].
    """
    drops: NDArray[np.float32] = (probs[0, label] - probs[1:, label]).reshape(cells, cells)
    return drops


def compute_heat_map(
    image: NDArray[np.uint8],
    compute_probs: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    label: int,
    cells: int = CELLS,
) -> NDArray[np.float32]:
    """Return the drops of ``label`` for uint8 (S, S, 3), as float32 (G, G); one call of ``compute_probs``."""
    return compute_drops(compute_probs(build_occlusions(image, cells)), label, cells)
