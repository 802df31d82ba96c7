"""Corruptions: each does what it says, more at each strength, and the table adds up."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import draw_pixels

from gender_classifier.evaluate.robustness import count_passes, measure_robustness, summarize
from gender_classifier.metrics.corruptions import CORRUPTIONS, FRAMING, OCCLUSION, OTHER, ROBUST, choose_images, corrupt
from gender_classifier.metrics.scores import wilson_interval

IMAGES = np.stack([draw_pixels(seed, 64, 64) for seed in range(4)])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_strength_changes_more_and_the_same_each_time(name: str) -> None:
    changes = []
    for strength, _ in enumerate(CORRUPTIONS[name].settings, 1):
        found = corrupt(IMAGES, name, strength)
        assert (found.dtype, found.shape) == (np.uint8, IMAGES.shape)
        assert np.array_equal(found, corrupt(IMAGES, name, strength))
        changes.append(np.abs(found.astype(int) - IMAGES).mean())
    assert changes[0] > 0
    assert changes == sorted(set(changes))


@pytest.mark.parametrize(("name", "strength", "factor"), [("looser frame", 2, 0.8), ("tighter frame", 2, 1.25)])
def test_frames_scale_about_the_centre(name: str, strength: int, factor: float) -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, 20:44, 20:44] = 255
    seen = corrupt(image, name, strength)[0, :, :, 0] > 127
    assert seen.any(axis=0).sum() == pytest.approx(24 * factor, abs=1.1)
    places = np.flatnonzero(seen.any(axis=0))
    assert (places[0] + places[-1]) / 2 == pytest.approx(31.5, abs=0.6)


def mark(top: int, left: int) -> np.ndarray:
    """Return two black images, uint8 (2, 60, 60, 3), with a white square of 12 px at a place."""
    images = np.zeros((2, 60, 60, 3), np.uint8)
    images[:, top : top + 12, left : left + 12] = 255
    return images


def find_centre(image: np.ndarray) -> tuple[float, float]:
    """Return the mean row and column of the light."""
    light = image[..., 0].astype(float)
    places = np.arange(len(light))
    return float(light.sum(axis=1) @ places / light.sum()), float(light.sum(axis=0) @ places / light.sum())


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("face higher", (-6, 0), (-6, 0)), ("face lower", (6, 0), (6, 0)), ("face aside", (0, -6), (0, 6))],
)
def test_a_face_moves_by_a_tenth_of_the_side(name: str, first: tuple[int, int], second: tuple[int, int]) -> None:
    images = mark(24, 24)
    start = np.array(find_centre(images[0]))
    for image, moved in zip(corrupt(images, name, 1), (first, second), strict=True):
        assert np.array(find_centre(image)) - start == pytest.approx(moved, abs=0.05)


def test_what_a_move_uncovers_is_the_repeated_edge() -> None:
    lower = corrupt(IMAGES, "face lower", 1)
    assert np.array_equal(lower[:, :6], np.repeat(IMAGES[:, :1], 6, axis=1))
    aside = corrupt(IMAGES, "face aside", 1)
    assert np.array_equal(aside[1, :, :6], np.repeat(IMAGES[1, :, :1], 6, axis=1))
    assert np.array_equal(aside[0, :, -6:], np.repeat(IMAGES[0, :, -1:], 6, axis=1))


@pytest.mark.parametrize(("name", "axis"), [("stretched in height", 0), ("stretched in width", 1)])
def test_a_stretch_changes_the_side_that_it_names_about_the_centre(name: str, axis: int) -> None:
    image = corrupt(mark(24, 24), name, 1)[0, :, :, 0]
    sides = image.max(axis=1).astype(float).sum() / 255, image.max(axis=0).astype(float).sum() / 255
    assert sides[axis] == pytest.approx(12 * 1.15, abs=0.5)
    assert sides[1 - axis] == 12
    assert find_centre(image[..., None]) == pytest.approx((29.5, 29.5), abs=0.01)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("sunglasses", range(19, 32)), ("mask", range(43, 64)), ("upper half hidden", range(32)),
     ("lower half hidden", range(32, 64))],
)  # fmt: skip
def test_an_occlusion_covers_the_part_that_it_names_with_one_colour(name: str, rows: range) -> None:
    covered = corrupt(IMAGES, name, 1)
    changed = (covered != IMAGES).any(axis=(0, 3))
    assert np.flatnonzero(changed.any(axis=1)).tolist() == list(rows)
    assert changed[rows].any(axis=0).mean() >= 0.8  # of the width
    assert len(np.unique(covered[:, changed].reshape(-1, 3), axis=0)) == 1


def test_a_hand_has_the_mean_colour_of_each_images_own_centre() -> None:
    plain = np.stack([np.full((64, 64, 3), color, np.uint8) for color in ((90, 60, 40), (240, 200, 180))])
    assert np.array_equal(corrupt(plain, "hand", 1), plain)
    changed = (corrupt(IMAGES, "hand", 1) != IMAGES).any(axis=(0, 3))
    assert 0.1 < changed.mean() < 0.3
    assert not changed[:20].any()


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

    rows = list(measure_robustness(predict, bright, labels, predict(bright), on_images=counted.append))
    assert len(rows) == 1 + count_passes() == 41
    assert sum(counted) == 4 * count_passes()
    assert (rows[0].corruption, rows[0].strength, rows[0].accuracy, rows[0].drop) == ("none", 0, 1.0, 0.0)
    by_name = {(row.corruption, row.strength): row for row in rows}
    assert by_name["darker", 3].accuracy == 0.5
    assert by_name["darker", 3].drop == 0.5
    assert {row.n for row in rows} == {4}
    assert (by_name["darker", 3].accuracy_low, by_name["darker", 3].accuracy_high) == wilson_interval(2, 4)
    assert by_name["compressed", 3].accuracy == 1.0
    assert by_name["darker", 1].setting == "brightness × 0.7"
    assert {row.group for row in rows} == {"", FRAMING, OCCLUSION, OTHER}
    ten = [row.accuracy for row in rows if row.corruption in ROBUST]
    assert len(ten) == 30
    assert summarize(rows)["robust_accuracy"] == pytest.approx(np.mean(ten))


def test_each_corruption_of_a_group_has_the_same_weight_in_its_mean() -> None:
    """A zoom has three strengths, a move one."""
    labels = np.array([0, 1, 0, 1])
    wrong = {"looser frame": 2, "face lower": 4, "hand": 3}
    rows = list(measure_robustness(lambda pixels: np.eye(2)[labels], IMAGES, labels, np.eye(2)[labels]))
    rows = [replace(row, accuracy=1 - wrong.get(row.corruption, 0) / 4) for row in rows]
    assert summarize(rows) == pytest.approx(
        {"robust_accuracy": 1 - 0.5 / 10, "framing_accuracy": 1 - (0.5 + 1) / 7, "occlusion_accuracy": 1 - 0.75 / 5}
    )
    assert summarize([]) == {}


def test_the_images_of_the_table_keep_the_share_of_each_class() -> None:
    labels = np.array([0] * 300 + [1] * 100)
    chosen = choose_images(labels, 40)
    assert len(chosen) == len(set(chosen)) == 40
    assert labels[chosen].mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(choose_images(labels, 400), np.arange(400))
    assert len(choose_images(labels, 0)) == 0
