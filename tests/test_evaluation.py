"""Figures of the report against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from gender_classifier.errors import DataError
from gender_classifier.evaluation import (
    evaluate,
    reliability_points,
    roc_points,
    softmax,
    worst_mistakes,
)

CLASSES = ("female", "male")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 500)
LOGITS = RNG.normal(size=(500, 2)) + 1.2 * np.eye(2)[LABELS]
REPORT = evaluate(LOGITS, LABELS, classes=CLASSES)


def test_softmax_is_stable() -> None:
    probs = softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], dtype=np.float32))
    np.testing.assert_allclose(probs, [[1, 0], [0.5, 0.5]])
    assert probs.dtype == np.float64


def test_figures_are_the_definitions() -> None:
    found, preds = REPORT.metrics, LOGITS.argmax(axis=1)
    assert found["accuracy"] == np.mean(preds == LABELS)
    log_probs = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    assert found["loss"] == pytest.approx(-log_probs[np.arange(500), LABELS].mean())
    assert found["recall_male"] == np.mean(preds[LABELS == 1] == 1)
    assert found["precision_female"] == np.mean(LABELS[preds == 0] == 0)
    assert found["balanced_accuracy"] == pytest.approx((found["recall_male"] + found["recall_female"]) / 2)
    scores = softmax(LOGITS)[:, 1]
    positive, negative = scores[LABELS == 1], scores[LABELS == 0]
    assert found["roc_auc"] == pytest.approx(np.mean(positive[:, None] > negative[None, :]))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(LABELS, scores))


def test_wilsons_interval_on_a_known_case() -> None:
    labels = np.array([0, 1] * 10)
    logits = np.eye(2)[labels] * 4
    logits[0] = logits[0][::-1]
    found = evaluate(logits, labels, classes=CLASSES).metrics  # 19 of 20
    assert (found["accuracy_low"], found["accuracy_high"]) == (
        pytest.approx(0.7639, abs=1e-4),
        pytest.approx(0.9911, abs=1e-4),
    )


def test_confusion_rows_are_actual() -> None:
    labels = np.array([0, 0, 0, 1])
    logits = np.array([[2, 1], [2, 1], [1, 2], [1, 2]], dtype=np.float32)
    assert evaluate(logits, labels, classes=CLASSES).confusion.tolist() == [[2, 1], [0, 1]]


def test_calibration_error_of_the_overconfident() -> None:
    labels = np.array([0, 1] * 50)
    always = np.tile([np.log(9.0), 0.0], (100, 1))  # 90 % sure of female, right half the time
    assert evaluate(always, labels, classes=CLASSES).metrics["ece"] == pytest.approx(0.4)
    assert evaluate(always, labels, classes=CLASSES).metrics["precision_male"] == 0


@given(
    logits=arrays(np.float32, (30, 2), elements=st.floats(-30, 30, width=32)),
    order=st.permutations(range(30)),
    bins=st.integers(2, 40),
)
def test_properties(logits: np.ndarray, order: list[int], bins: int) -> None:
    labels = np.arange(30) % 2
    found = evaluate(logits, labels, classes=CLASSES, num_bins=bins)
    assert found.confusion.sum() == 30
    assert 0 <= found.metrics["accuracy_low"] <= found.metrics["accuracy"] <= found.metrics["accuracy_high"] <= 1
    assert 0 <= found.metrics["ece"] <= 1
    assert all(np.isfinite(value) for value in found.metrics.values())
    shuffled = evaluate(logits[order], labels[order], classes=CLASSES, num_bins=bins)
    assert shuffled.metrics == pytest.approx(found.metrics)
    points = reliability_points(found.probs, labels, num_bins=bins)
    assert sum(point.count for point in points) == 30
    assert all(point.bin_low - 1e-12 <= point.confidence <= point.bin_high + 1e-12 for point in points)


def test_more_than_two_classes() -> None:
    labels = np.arange(90) % 3
    found = evaluate(np.eye(3)[labels] * 3 + RNG.normal(size=(90, 3)), labels, classes=("a", "b", "c"))
    assert found.confusion.shape == (3, 3)
    assert 0.5 < found.metrics["roc_auc"] <= 1


def test_broken_logits_and_missing_classes_are_refused() -> None:
    broken = LOGITS.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="1 of 500 images have logits that are not finite"):
        evaluate(broken, LABELS, classes=CLASSES)
    with pytest.raises(DataError, match="none of the 10 images is male"):
        evaluate(LOGITS[:10], np.zeros(10, int), classes=CLASSES)


def test_the_roc_is_thinned_and_keeps_its_area() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 20_000)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    points = roc_points(scores, labels)
    assert len(points) <= 400
    assert points[0] == (0.0, 0.0, 1.0)
    assert points[-1][:2] == (1.0, 1.0)
    area = np.trapezoid([point[1] for point in points], [point[0] for point in points])
    assert area == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-4)


def test_worst_mistakes_are_the_confident_ones() -> None:
    rows = worst_mistakes(REPORT, LABELS, 10)
    confidence = REPORT.probs[rows].max(axis=1)
    assert (REPORT.preds[rows] != LABELS[rows]).all()
    assert (np.diff(confidence) <= 0).all()
    assert confidence[-1] >= np.sort(REPORT.probs[REPORT.preds != LABELS].max(axis=1))[-10]
    assert len(worst_mistakes(REPORT, LABELS, 10_000)) == int((REPORT.preds != LABELS).sum())
    assert len(worst_mistakes(REPORT, LABELS, 0)) == 0
