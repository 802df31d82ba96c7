"""The bias for corrupted images: towards the class that they lose, at no cost to the images as they are."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gender_classifier.metrics import robust_bias
from gender_classifier.metrics.corruptions import CORRUPTIONS, OCCLUSION, OTHER, corrupt, corrupt_in_turn
from gender_classifier.metrics.robust_bias import GROUPS, fit_robust_bias

Logits = NDArray[np.float64]


def draw_val(
    classes: int = 2, count: int = 600, margin: float = 3.0
) -> tuple[NDArray[np.uint8], NDArray[np.int64], Logits]:
    """Return images, labels, and logits that are right by about ``margin``, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    logits = rng.normal(0, 1.5, (count, classes)) + margin * np.eye(classes)[labels]
    return rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), labels, logits


def lose(logits: Logits, losses: Logits) -> Callable[[NDArray[np.uint8]], Logits]:
    """Return a network that takes something from each class's logit if an image is corrupted."""
    return lambda _: logits - losses


@settings(max_examples=15, deadline=None)
@given(lost=st.floats(0.3, 2), place=st.integers(0, 2), classes=st.integers(2, 3))
def test_the_class_that_corrupted_images_lose_is_given_more(lost: float, place: int, classes: int) -> None:
    images, labels, logits = draw_val(classes)
    losses = lost * np.eye(classes)[place % classes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust_bias, "_MOST_LOST", 1.0)
        bias = fit_robust_bias(lose(logits, losses), images, labels, logits, temperature=0.7)
    assert sum(bias) == pytest.approx(0, abs=1e-9)
    assert int(np.argmax(bias)) == place % classes
    others = [value for label, value in enumerate(bias) if label != place % classes]
    # Three of four images have lost it, and the fourth has not.
    assert 0.4 * lost < max(bias) - np.mean(others) < lost


def test_what_changes_nothing_gets_no_bias() -> None:
    images, labels, logits = draw_val()
    # Twice as many of one class: what the images as they are ask for is training's, and stays.
    kept = np.flatnonzero((labels == 0) | (np.arange(len(labels)) % 4 == 1))
    images, labels, logits = images[kept], labels[kept], logits[kept] + np.array([0.0, 0.8])
    bias = fit_robust_bias(lose(logits, np.zeros(2)), images, labels, logits, temperature=1.0)
    assert bias == pytest.approx((0, 0), abs=1e-2)


def test_the_images_as_they_are_lose_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, logits = draw_val(margin=1.0)

    def fit_and_score() -> float:
        bias = fit_robust_bias(lose(logits, np.array([6.0, 0.0])), images, labels, logits, temperature=1.0)
        return float(((logits + bias).argmax(axis=1) == labels).mean())

    before = float((logits.argmax(axis=1) == labels).mean())
    assert fit_and_score() >= before - 0.005  # 0.001 of the accuracy that the probabilities expect, and chance
    monkeypatch.setattr(robust_bias, "_MOST_LOST", 1.0)
    assert fit_and_score() < before - 0.01


def test_a_network_that_has_learned_nothing_gets_no_bias() -> None:
    images, labels, logits = draw_val()
    unrelated = np.random.default_rng(1).normal(0, 1, logits.shape)[np.argsort(labels, kind="stable")]
    unrelated[labels == 0] = unrelated[labels == 1]
    bias = fit_robust_bias(lose(unrelated, np.array([1.0, 0.0])), images, labels, unrelated, temperature=1.0)
    assert bias == (0.0, 0.0)


def test_it_predicts_each_group_once_and_no_more_images_than_it_says() -> None:
    _, labels, logits = draw_val(count=3000)
    seen = []

    def predict(images: NDArray[np.uint8]) -> Logits:
        seen.append(len(images))
        return logits[: len(images)]

    fit_robust_bias(predict, np.zeros((3000, 8, 8, 3), np.uint8), labels, logits, temperature=1.0)
    assert seen == [2048] * len(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("count", [1, 3, 90])
def test_each_class_meets_each_corruption_of_a_group(group: str, count: int) -> None:
    images, labels, _ = draw_val(count=count)
    changed = corrupt_in_turn(images, labels, group)
    chosen = [(name, strength) for name, corruption in CORRUPTIONS.items() if corruption.group == group
              for strength in range(1, len(corruption.settings) + 1)]  # fmt: skip
    rows = np.argsort(labels, kind="stable")
    for turn, (name, strength) in enumerate(chosen):
        mine = rows[turn :: len(chosen)]
        if len(mine):
            assert np.array_equal(changed[mine], corrupt(images[mine], name, strength))
    if count == 90 and group in (OCCLUSION, OTHER):
        met = [set(labels[rows[turn :: len(chosen)]].tolist()) for turn in range(len(chosen))]
        assert met == [{0, 1}] * len(chosen)
