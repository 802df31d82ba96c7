"""Occlusion sensitivity: how far a prediction's probability falls when each part of the image is covered.

After Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014), section 4.2. It needs only
the model's probabilities: no gradients and no PyTorch.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

CELLS = 8
"""Rows and columns of a heat map, which costs CELLS * CELLS + 1 predictions."""

# Side of the covering square in cells: smaller ones hide too little to change the prediction.
_COVER = 2


def build_occlusions(image: NDArray[np.uint8], cells: int = CELLS) -> NDArray[np.uint8]:
    """Return the image followed by one copy per cell, in rows, with a square around the cell's centre covered.

    The square has the image's mean colour, so that it is as inconspicuous as possible.

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
    middles = (np.arange(cells) + 0.5) * size / cells
    spans = [slice(max(0, round(middle - reach)), min(size, round(middle + reach))) for middle in middles]
    for index, (rows, columns) in enumerate(itertools.product(spans, spans), start=1):
        copies[index, rows, columns] = color
    return copies


def compute_drops(probs: NDArray[np.float32], label: int, cells: int = CELLS) -> NDArray[np.float32]:
    """Return by how much the probability of ``label`` falls with each cell covered; negative where it rises.

    Args:
        probs: float32 (1 + G * G, C), of the images that :func:`build_occlusions` returns.
        label: index of the class to explain.
        cells: G.

    Returns:
        float32 (G, G), in [-1, 1].
    """
    drops: NDArray[np.float32] = (probs[0, label] - probs[1:, label]).reshape(cells, cells)
    return drops
