"""Corruptions: each does what it says, more at each strength, and the table adds up."""

import numpy as np
import pytest
from conftest import draw_pixels

from gender_classifier.evaluate.robustness import CORRUPTIONS, choose_images, corrupt, mean_accuracy, measure_robustness
from gender_classifier.metrics.scores import wilson_interval

IMAGES = np.stack([draw_pixels(seed, 64, 64) for seed in range(4)])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_strength_changes_more_and_the_same_each_time(name: str) -> None:
    changes = []
    for strength in (1, 2, 3):
        found = corrupt(IMAGES, name, strength)
        assert (found.dtype, found.shape) == (np.uint8, IMAGES.shape)
        assert np.array_equal(found, corrupt(IMAGES, name, strength))
        changes.append(np.abs(found.astype(int) - IMAGES).mean())
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize(("name", "strength", "factor"), [("looser frame", 2, 0.8), ("tighter frame", 2, 1.25)])
def test_frames_scale_about_the_centre(name: str, strength: int, factor: float) -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, 20:44, 20:44] = 255
    seen = corrupt(image, name, strength)[0, :, :, 0] > 127
    assert seen.any(axis=0).sum() == pytest.approx(24 * factor, abs=1.1)
    places = np.flatnonzero(seen.any(axis=0))
    assert (places[0] + places[-1]) / 2 == pytest.approx(31.5, abs=0.6)


def test_no_colour_is_grey() -> None:
    grey = corrupt(IMAGES, "less colour", 3).astype(int)
    assert np.abs(grey[..., 0] - grey[..., 1]).max() <= 1


def test_the_table_has_a_row_a_strength() -> None:
    labels = np.array([0, 1, 0, 1])
    bright = IMAGES.copy()
    bright[labels == 1] = 255 - bright[labels == 1] // 4
    bright[labels == 0] //= 4
    counted: list[int] = []

    def predict(pixels: np.ndarray) -> np.ndarray:
        light = pixels.mean(axis=(1, 2, 3))
        return np.stack([128 - light, light - 128], axis=1)

    rows = list(measure_robustness(predict, bright, labels, on_images=counted.append))
    assert len(rows) == 1 + 3 * len(CORRUPTIONS)
    assert sum(counted) == 4 * len(rows)
    assert (rows[0].corruption, rows[0].strength, rows[0].accuracy, rows[0].drop) == ("none", 0, 1.0, 0.0)
    by_name = {(row.corruption, row.strength): row for row in rows}
    assert by_name["darker", 3].accuracy == 0.5
    assert by_name["darker", 3].drop == 0.5
    assert {row.n for row in rows} == {4}
    assert (by_name["darker", 3].accuracy_low, by_name["darker", 3].accuracy_high) == wilson_interval(2, 4)
    assert by_name["compressed", 3].accuracy == 1.0
    assert by_name["darker", 1].setting == "brightness × 0.7"
    assert mean_accuracy(rows) == pytest.approx(np.mean([row.accuracy for row in rows[1:]]))


def test_the_images_of_the_table_keep_the_share_of_each_class() -> None:
    labels = np.array([0] * 300 + [1] * 100)
    chosen = choose_images(labels, 40)
    assert len(chosen) == len(set(chosen)) == 40
    assert labels[chosen].mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(choose_images(labels, 400), np.arange(400))
    assert len(choose_images(labels, 0)) == 0
