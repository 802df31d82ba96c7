"""Figures of the report against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from gender_classifier.errors import DataError
from gender_classifier.evaluate.measure import measure_tta
from gender_classifier.evaluate.mistakes import rank_label_issues, worst_mistakes
from gender_classifier.metrics.calibration import fit_temperature, reliability_points, softmax
from gender_classifier.metrics.curves import (
    choose_threshold,
    list_roc_curves,
    operating_point,
    pick_positive,
    roc_points,
    threshold_points,
)
from gender_classifier.metrics.scores import as_key, as_keys, compare_with_constant, evaluate

CLASSES = ("female", "male")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 500)
LOGITS = RNG.normal(size=(500, 2)) + 1.2 * np.eye(2)[LABELS]
REPORT = evaluate(LOGITS, LABELS, classes=CLASSES)


def test_cost_and_use_of_a_second_look() -> None:
    once = np.array([[0.0, 1.4], [3.0, 1.5], [0.0, 0.0], [-9.0, 4.0]], dtype=np.float32)
    logits = once + np.array([[0.5, 0.0], [0.0, 0.0], [0.25, -0.25], [0.0, 0.0]], dtype=np.float32)
    labels = np.array([1, 0, 1, 0])
    assert measure_tta(logits, once, labels) == {"tta_share": 0.5, "accuracy_without_tta": 0.5}
    assert measure_tta(once, once, labels) == {"tta_share": 0.0, "accuracy_without_tta": 0.5}


@pytest.mark.parametrize(
    ("confusion", "answer"),
    [
        ([[0, 30], [0, 30]], "a"),  # one class called, equal shares
        ([[60, 0, 0], [20, 0, 0], [20, 0, 0]], "a"),
        ([[18, 12], [12, 18]], "a"),  # 0.6, but of 60 images
        ([[180, 120], [120, 180]], ""),
        ([[10, 5, 5], [5, 10, 5], [5, 5, 10]], ""),  # 0.5 of three equal classes
        ([[4, 1], [1, 94]], ""),  # 0.98, which of 100 images is not clearly above the share of 0.95
        ([[5, 0], [10, 85]], ""),  # 0.9, below that share, but it knows both
        ([[0, 5], [1, 94]], "b"),
        ([[0, 10], [90, 0]], "b"),  # worse than chance
    ],
)
def test_a_model_must_be_told_from_one_that_gives_one_answer(confusion: list[list[int]], answer: str) -> None:
    found = compare_with_constant(np.array(confusion), ("a", "b", "c")[: len(confusion)])
    assert found.partition("always answering ")[2][:1] == answer


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


def test_metrics_of_absent_classes_are_left_out_of_means() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 4)), np.repeat([0, 2, 3], 20)
    metrics = evaluate(logits, labels, classes=["a", "b", "c", "d"], complete=False).metrics
    present = [metrics[f"recall_{name}"] for name in "acd"]
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(present))
    assert not any(key.endswith("_b") for key in metrics)
    areas = [sk.roc_auc_score(labels == label, softmax(logits)[:, label]) for label in (0, 2, 3)]
    assert metrics["roc_auc"] == pytest.approx(np.mean(areas))


def test_of_more_than_two_classes_each_has_a_curve_and_all_comparisons_count_alike() -> None:
    probs, labels = softmax(np.random.default_rng(1).normal(size=(90, 3))), np.repeat([0, 1, 2], 30)
    curves = list_roc_curves(probs, labels, ["x", "y", "z"])
    assert list(curves) == ["x", "y", "z"]
    assert curves["y"] == roc_points(probs[:, 1], (labels == 1).astype(np.int64))
    scores, positives = pick_positive(probs, labels)
    assert scores.shape == positives.shape == (270,)
    assert positives.sum() == 90
    confusion = sk.confusion_matrix(labels, probs.argmax(axis=1))
    false_positive, true_positive = operating_point(confusion)
    assert true_positive == pytest.approx(confusion.trace() / 90)
    assert false_positive == pytest.approx((90 - confusion.trace()) / 180)


@pytest.mark.parametrize(("name", "key"), [("60+", "60_"), ("a/../b", "a_.._b"), ("woman", "woman"), ("é", "_")])
def test_class_names_become_legal_keys(name: str, key: str) -> None:
    assert as_key(f"recall_{name}") == f"recall_{key}"


def test_class_names_that_become_one_key_keep_both_metrics() -> None:
    metrics = {"recall_<30": 0.1, "recall_>30": 0.2, "recall_?30": 0.3, "loss": 0.4}
    assert as_keys(metrics) == {"recall__30": 0.1, "recall__30_2": 0.2, "recall__30_3": 0.3, "loss": 0.4}


def test_the_roc_is_thinned_and_keeps_its_area() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 20_000)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    points = roc_points(scores, labels)
    assert len(points) <= 400
    assert points[0] == (0.0, 0.0, 1.0)
    assert points[-1][:2] == (1.0, 1.0)
    area = sk.auc([point[0] for point in points], [point[1] for point in points])
    assert area == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-4)


def test_worst_mistakes_are_the_confident_ones() -> None:
    rows = worst_mistakes(REPORT, LABELS, 10)
    confidence = REPORT.probs[rows].max(axis=1)
    assert (REPORT.preds[rows] != LABELS[rows]).all()
    assert (np.diff(confidence) <= 0).all()
    assert confidence[-1] >= np.sort(REPORT.probs[REPORT.preds != LABELS].max(axis=1))[-10]
    assert len(worst_mistakes(REPORT, LABELS, 10_000)) == int((REPORT.preds != LABELS).sum())
    assert len(worst_mistakes(REPORT, LABELS, 0)) == 0


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found_again(true_temperature: float) -> None:
    rng = np.random.default_rng(1)
    calm = rng.normal(scale=2, size=(20_000, 2))
    labels = (rng.random(20_000) < softmax(calm)[:, 1]).astype(np.int64)
    assert fit_temperature(calm * true_temperature, labels) == pytest.approx(true_temperature, rel=0.05)


def test_a_temperature_moves_no_prediction_and_mends_the_calibration() -> None:
    harsh = LOGITS * 6
    temperature = fit_temperature(harsh, LABELS)
    before, after = (evaluate(harsh / value, LABELS, classes=CLASSES) for value in (1, temperature))
    assert (before.preds == after.preds).all()
    assert after.metrics["loss"] < before.metrics["loss"]
    assert after.metrics["ece"] < before.metrics["ece"]


def test_a_perfect_split_does_not_make_the_model_boundlessly_sure() -> None:
    assert fit_temperature(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([0, 1])) == pytest.approx(0.25, rel=0.01)


def test_thresholds_are_the_definitions() -> None:
    rows = threshold_points(REPORT.probs[:, 1], LABELS)
    assert [round(row.threshold, 2) for row in rows] == [number / 100 for number in range(1, 100)]
    half = rows[49]
    preds = (REPORT.probs[:, 1] >= 0.5).astype(int)
    assert half.accuracy == pytest.approx(sk.accuracy_score(LABELS, preds))
    assert half.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(LABELS, preds))
    assert half.precision == pytest.approx(sk.precision_score(LABELS, preds))
    assert half.recall == pytest.approx(sk.recall_score(LABELS, preds))
    recalls = [row.recall for row in rows]
    assert recalls == sorted(recalls, reverse=True)


def test_unequal_classes_are_cut_elsewhere_than_at_a_half() -> None:
    """Three to one, and scores that know it: the cut that serves both classes lies at the share of the positives."""
    rng = np.random.default_rng(2)
    labels = (rng.random(20_000) < 0.25).astype(np.int64)
    evidence = rng.normal(loc=np.where(labels == 1, 1.0, -1.0))
    odds = np.exp(2 * evidence) * 0.25 / 0.75
    chosen = choose_threshold(threshold_points(odds / (1 + odds), labels))
    assert 0.2 < chosen < 0.3


def test_wrong_labels_come_first_among_the_suspects() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 2000)
    probs = softmax(rng.normal(size=(2000, 2)) + 4 * np.eye(2)[truth])
    labels = truth.copy()
    swapped = rng.choice(2000, 60, replace=False)
    labels[swapped] = 1 - labels[swapped]
    ranked = rank_label_issues(probs, labels)
    assert len(set(ranked[:50]) & set(swapped)) >= 48
    assert len(ranked) < 120
    own = probs[ranked, labels[ranked]]
    assert (np.diff(own) >= 0).all()
    assert len(rank_label_issues(probs, truth)) < 40
