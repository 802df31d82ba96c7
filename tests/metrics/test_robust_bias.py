"""The bias for corrupted images: towards the class that they lose, at no cost to the images as they are."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import draw_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gender_classifier.errors import ModelError
from gender_classifier.metrics import robust_bias
from gender_classifier.metrics.corruptions import CORRUPTIONS, OCCLUSION, choose_images, corrupt, corrupt_in_turn
from gender_classifier.metrics.robust_bias import GROUPS, fit_robust_bias

Logits = NDArray[np.float64]


def draw_val(
    classes: int = 2, count: int = 2000, margin: float = 3.0
) -> tuple[NDArray[np.uint8], NDArray[np.int64], Logits]:
    """Return images, labels, and logits that are right by about ``margin``, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    logits = rng.normal(0, 1.5, (count, classes)) + margin * np.eye(classes)[labels]
    return rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), labels, logits


def lose(logits: Logits, losses: Logits) -> Callable[[NDArray[np.uint8]], Logits]:
    """Return a network that takes something from each class's logit if an image is corrupted."""
    return lambda _: logits - losses


def number_images(count: int) -> NDArray[np.uint8]:
    """Return images, uint8 (N, 8, 8, 3), that hold their row's number."""
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[..., 0], images[..., 1] = (part[:, None, None] for part in np.divmod(np.arange(count), 256))
    return images


def read_numbers(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    return images[:, 0, 0, 0].astype(np.int64) * 256 + images[:, 0, 0, 1]


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


@pytest.mark.parametrize("rare", [1, 10, 60])
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_what_changes_nothing_gets_no_bias(rare: int, shift: float) -> None:
    """Whatever the images as they are ask for: that is training's, and stays."""
    images, labels, logits = draw_val()
    kept = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:rare]])
    images, labels, logits = images[kept], labels[kept], logits[kept] + np.array([0.0, shift])
    bias = fit_robust_bias(lose(logits, np.zeros(2)), images, labels, logits, temperature=1.0)
    assert bias == (pytest.approx((0, 0), abs=1e-6) if rare >= 10 else ())


def test_few_images_decide_nothing() -> None:
    images, labels, logits = draw_val(count=999)
    assert fit_robust_bias(lose(logits, np.array([1.0, 0.0])), images, labels, logits, temperature=1.0) == ()


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("shrink", [0.5, 1.0])
def test_corruptions_that_treat_all_classes_alike_favour_none(noise: float, shrink: float) -> None:
    """With one class nine times as frequent, and the network's logits with it."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [400, 3600])
    logits = rng.normal(0, 1, (4000, 2)) + 2.5 * np.eye(2)[labels] + np.array([0.0, np.log(9)])
    half = np.array([0.0, np.log(9)])  # both sides of it lose the same
    corrupted = (logits - half) * shrink + half + rng.normal(0, noise, logits.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robust_bias, "_MOST_LOST", 1.0)
        patch.setattr(robust_bias, "corrupt_in_turn", lambda images, *_: images)
        bias = fit_robust_bias(
            lambda images: corrupted[read_numbers(images)],
            number_images(4000), labels, logits, temperature=1.0,
        )  # fmt: skip
    assert bias == pytest.approx((0, 0), abs=0.12)


def test_the_images_as_they_are_lose_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, logits = draw_val(margin=1.0)

    def fit_and_score() -> float:
        bias = fit_robust_bias(lose(logits, np.array([6.0, 0.0])), images, labels, logits, temperature=1.0)
        return float(((logits + bias).argmax(axis=1) == labels).mean())

    before = float((logits.argmax(axis=1) == labels).mean())
    assert fit_and_score() >= before - 0.01  # 0.001 are expected, the rest is chance
    monkeypatch.setattr(robust_bias, "_MOST_LOST", 1.0)
    assert fit_and_score() < before - 0.01


def test_logits_of_any_scale_lose_no_accuracy() -> None:
    images, labels, logits = draw_val(margin=1.0)
    logits = logits / 100  # an underconfident network: no temperature of 0.25 or more makes up for that
    bias = fit_robust_bias(lose(logits, np.array([0.06, 0.0])), images, labels, logits, temperature=0.25)
    before = float((logits.argmax(axis=1) == labels).mean())
    assert bias[0] > 0
    assert float(((logits + bias).argmax(axis=1) == labels).mean()) >= before - 0.01


def test_a_network_that_has_learned_nothing_gets_no_bias() -> None:
    images, labels, _ = draw_val()
    unrelated = np.repeat(np.random.default_rng(1).normal(0, 1, (1000, 2)), 2, axis=0)  # the same for both classes
    assert fit_robust_bias(lose(unrelated, np.array([1.0, 0.0])), images, labels, unrelated, temperature=1.0) == ()


def test_corrupted_images_without_finite_logits_are_an_error() -> None:
    images, labels, logits = draw_val()
    with pytest.raises(ModelError, match=r"corrupted images \(framing\) are not finite; train again"):
        fit_robust_bias(lambda _: logits * np.nan, images, labels, logits, temperature=1.0)


def test_it_predicts_each_group_once_for_the_images_whose_labels_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 2,048 of them, and each with its own logits: the same bias as from these images alone."""
    _, labels, logits = draw_val(count=3000)
    monkeypatch.setattr(robust_bias, "corrupt_in_turn", lambda images, *_: images)
    seen = []

    def predict(images: NDArray[np.uint8]) -> Logits:
        rows = read_numbers(images)
        seen.append(rows.tolist())
        return logits[rows]

    bias = fit_robust_bias(predict, number_images(3000), labels, logits, temperature=1.0)
    assert seen == [choose_images(labels, 2048).tolist()] * len(GROUPS)
    assert bias == pytest.approx((0, 0), abs=1e-6)  # mixed-up rows would be noise, and that is not the same


@pytest.mark.parametrize("group", GROUPS)
def test_each_class_meets_each_corruption_of_a_group(group: str) -> None:
    images = np.stack([draw_pixels(0, 64, 64)] * 96)
    labels = np.arange(96) % 2
    expected = {corrupt(images[:2], name, strength)[0].tobytes() for name, corruption in CORRUPTIONS.items()
                if corruption.group == group for strength in range(1, len(corruption.settings) + 1)}  # fmt: skip
    changed = corrupt_in_turn(images, labels, group)
    for label in (0, 1):
        found = {image.tobytes() for image in changed[labels == label]}
        assert expected <= found  # faces that go to either side are one more


@pytest.mark.parametrize("count", [1, 3])
def test_few_images_are_all_corrupted(count: int) -> None:
    images = np.stack([draw_pixels(seed, 64, 64) for seed in range(count)])
    changed = corrupt_in_turn(images, np.zeros(count, np.int64), OCCLUSION)
    assert (changed != images).any(axis=(1, 2, 3)).all()
