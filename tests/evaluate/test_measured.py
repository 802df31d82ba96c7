"""The first table of the card: every set with its worst, the lowest figure first."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gender_classifier.data.labelled_files import LabelledImage
from gender_classifier.data.labelled_pixels import Reading
from gender_classifier.evaluate.extra.sets import ScoredSet
from gender_classifier.evaluate.measure import Evaluation
from gender_classifier.evaluate.measured import list_measured
from gender_classifier.evaluate.robustness import RobustnessRow
from gender_classifier.metrics.scores import Report, evaluate, wilson_interval

CLASSES = ("female", "male")


def report(labels: np.ndarray, wrong: list[int]) -> Report:
    """Measure predictions that are right but for the rows ``wrong``."""
    logits = np.eye(2, dtype=np.float32)[labels] * 4
    logits[wrong] = logits[wrong, ::-1]
    return evaluate(logits, labels, classes=CLASSES)


def scored(values: list[str], labels: np.ndarray, wrong: list[int]) -> ScoredSet:
    images = [
        LabelledImage(f"{row}.png", f"{row}.png", int(label), "", "", (value,), lambda: b"")
        for row, (value, label) in enumerate(zip(values, labels, strict=True))
    ]
    labelled: Any = SimpleNamespace(name="abroad", images=images, attributes=("age",))
    return ScoredSet(labelled, Reading(), np.arange(len(labels)), labels, report(labels, wrong))


TEST = np.repeat([0, 1], 50)


def corrupted(name: str, strength: int, setting: str, hits: int) -> RobustnessRow:
    """Return the row of ``hits`` of 40 images, where all are right without a corruption."""
    return RobustnessRow(name, strength, setting, 40, hits / 40, *wilson_interval(hits, 40), 1 - hits / 40)


CORRUPTED = [
    corrupted("none", 0, "", 40),
    corrupted("blurred", 3, "Gaussian of 1.8 px", 28),
    corrupted("rotated", 1, "10 degrees", 36),
]


def test_without_further_sets_there_are_test_and_its_worst_corruption() -> None:
    found = list_measured(Evaluation(report(TEST, [0, 1, 2]), np.zeros((1, 2)), CORRUPTED, []), {}, CLASSES)
    assert [(row.name, row.images) for row in found] == [("test, blurred (Gaussian of 1.8 px)", 40), ("test", 100)]
    worst, test = found
    assert (worst.lowest, dict(worst.recalls)) == ((0.7, "accuracy"), {})
    assert (worst.accuracy_low, worst.accuracy_high) == pytest.approx(wilson_interval(28, 40))
    assert test.accuracy == pytest.approx(0.97)
    assert test.lowest == (pytest.approx(0.94), "recall of female")


def test_of_a_further_set_the_worst_attribute_is_shown_and_one_image_is_none() -> None:
    labels = np.array([0, 1] * 100 + [1])
    values = ["young"] * 100 + ["old"] * 100 + ["unknown"]
    wrong = [*range(100, 160, 2), 200]  # thirty of fifty old women, and the one image of unknown age
    evaluation = Evaluation(report(TEST, []), np.zeros((1, 2)), [], [])
    found = list_measured(evaluation, {"abroad": scored(values, labels, wrong)}, CLASSES)
    assert [row.name for row in found] == ["abroad, age old", "abroad", "test"]
    assert found[0].lowest == (pytest.approx(0.4), "recall of female")
    assert (found[0].images, found[1].images) == (100, 201)


def test_of_the_test_set_the_worst_attribute_is_shown_as_well() -> None:
    labels = np.array([0, 1] * 100)
    one = scored(["young"] * 100 + ["old"] * 100, labels, [*range(100, 160, 2)])
    evaluation = Evaluation(one.report, np.zeros((1, 2)), [], [], one.by_attribute)
    found = list_measured(evaluation, {}, CLASSES)
    assert [(row.name, row.images) for row in found] == [("test, age old", 100), ("test", 200)]
    assert found[0].recalls == {"female": 0.4, "male": 1.0}
