"""Covering parts of an image finds the part that a model looks at."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gender_classifier.predict.explain import build_occlusions, compute_drops

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def looks_at(rows: slice, columns: slice) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return a model whose class 1 is the likelier, the brighter that part is."""

    def compute_probs(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        bright = images[:, rows, columns].mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - bright, bright], axis=1).astype(np.float32)

    return compute_probs


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (5, 2), (7, 7)])
def test_the_part_that_decides_stands_out(row: int, column: int) -> None:
    part = slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8)
    image = np.full((64, 64, 3), 20, np.uint8)
    image[part] = 250
    grid = compute_drops(looks_at(*part)(build_occlusions(image)), 1)
    assert grid.shape == (8, 8)
    assert grid.dtype == np.float32
    assert np.unravel_index(grid.argmax(), grid.shape) == (row, column)
    assert grid.max() > 0.8
    # What the square about a cell does not reach does not count, exactly.
    far = np.array([[max(abs(y - row), abs(x - column)) > 1 for x in range(8)] for y in range(8)])
    assert (grid[far] == 0).all()
    # Of the other class, the same parts raise the probability.
    np.testing.assert_allclose(compute_drops(looks_at(*part)(build_occlusions(image)), 0), -grid, atol=1e-6)


@pytest.mark.parametrize(("size", "cells"), [(64, 8), (64, 4), (60, 7), (9, 9), (8, 1)])
def test_every_pixel_is_covered_by_some_copy_and_the_first_is_whole(size: int, cells: int) -> None:
    image = PICTURE[:size, :size]
    before = image.copy()
    copies = build_occlusions(image, cells)
    assert copies.shape == (1 + cells * cells, size, size, 3)
    assert copies.dtype == np.uint8
    np.testing.assert_array_equal(copies[0], image)
    np.testing.assert_array_equal(image, before)
    mean = image.mean(axis=(0, 1)).round().astype(np.uint8)
    is_covered = (copies[1:] == mean).all(axis=3)
    assert is_covered.any(axis=0).all()
    assert is_covered.any(axis=(1, 2)).all()


def test_an_even_picture_has_nothing_that_decides() -> None:
    image = np.full((64, 64, 3), 77, np.uint8)
    grid = compute_drops(looks_at(slice(0, 64), slice(0, 64))(build_occlusions(image)), 1)
    assert (grid == 0).all()


def test_drops_are_in_rows() -> None:
    probs = np.array([[0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.5, 0.5], [0.0, 1.0]], np.float32)
    np.testing.assert_allclose(compute_drops(probs, 1, 2), [[0.1, 0.2], [0.3, -0.2]], atol=1e-6)
