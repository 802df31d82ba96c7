"""Temperature and bias: what they recover, what keeps few images from certainty, what cross-validation hides."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from gender_classifier.errors import DataError
from gender_classifier.metrics.calibration import softmax
from gender_classifier.metrics.platt import FOLDS, Scaling, _split, cross_validate, fit_scaling
from gender_classifier.metrics.scores import evaluate

CLASSES = ("female", "male")


def draw(count: int, temperature: float, bias: tuple[float, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (N, C), and labels drawn from what the given scaling makes of them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, len(bias)))
    truth = softmax(logits / temperature + np.array(bias))
    labels = (truth.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return softmax(logits), labels


@pytest.mark.parametrize(("temperature", "bias"), [(2.0, (0.7, -0.7)), (0.6, (-1.0, 1.0)), (1.5, (0.8, -0.3, -0.5))])
def test_the_scaling_behind_the_labels_is_found(temperature: float, bias: tuple[float, ...]) -> None:
    found = fit_scaling(*draw(20_000, temperature, bias))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.bias == pytest.approx(bias, abs=0.05)
    assert sum(found.bias) == pytest.approx(0, abs=1e-9)


def test_with_two_classes_it_is_platts_method() -> None:
    probs, labels = draw(4000, 1.7, (0.5, -0.5))
    margin = np.log(probs[:, 1] / probs[:, 0])
    fit = LogisticRegression(C=1e10, tol=1e-8).fit(margin[:, None], labels)
    np.testing.assert_allclose(
        fit_scaling(probs, labels).apply(probs), fit.predict_proba(margin[:, None]), atol=2e-3
    )  # the targets differ from 0 and 1 by 1 / 2,000


def test_images_that_are_all_right_do_not_make_the_model_certain() -> None:
    probs = np.array([[0.9, 0.1]] * 20 + [[0.1, 0.9]] * 20)
    calibrated = fit_scaling(probs, np.repeat([0, 1], 20)).apply(probs)
    assert calibrated[0, 0] == pytest.approx(21 / 22, abs=1e-3)  # Platt's target


def test_probabilities_of_0_are_no_infinity() -> None:
    calibrated = Scaling(0.5, (0.1, -0.1)).apply(np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32))
    assert np.isfinite(calibrated).all()
    assert calibrated.argmax(axis=1).tolist() == [1, 0]


def test_labels_that_contradict_the_model_are_refused() -> None:
    probs, labels = draw(400, 1.0, (0.0, 0.0))
    with pytest.raises(DataError, match="not related to the labels of these 400 images, or opposed .* swapped"):
        fit_scaling(probs, 1 - labels)


def test_a_shifted_model_gains_what_the_shift_took() -> None:
    probs, labels = draw(400, 1.6, (1.5, -1.5))
    figures = cross_validate(probs, probs, labels, CLASSES)
    assert list(figures) == ["accuracy", "balanced_accuracy", "recall_female", "recall_male", "ece", "loss"]
    before = evaluate(np.log(probs), labels, classes=CLASSES).metrics
    for name, figure in figures.items():
        assert figure.before[0] == pytest.approx(before[name])
        assert figure.change[0] == pytest.approx(figure.after[0] - figure.before[0])
        for value, low, high in (figure.before, figure.after, figure.change):
            assert low <= value <= high
    assert figures["loss"].change[2] < 0  # the whole interval is a gain
    assert figures["ece"].change[2] < 0
    assert figures["accuracy"].change[1] > 0
    again = cross_validate(probs, probs, labels, CLASSES)
    assert again == figures


def test_no_interval_of_a_share_passes_1() -> None:
    """All right but one image: the draws have many 1s, and their quantile is moved up."""
    probs = np.array([[0.9, 0.1]] * 110 + [[0.1, 0.9]] * 109 + [[0.6, 0.4]])
    figures = cross_validate(probs, probs, np.repeat([0, 1], 110), CLASSES)
    for name, figure in figures.items():
        for value, low, high in (figure.before, figure.after):
            assert 0 <= low <= value <= high, name
            assert name == "loss" or high <= 1, name


def test_the_interval_of_an_accuracy_is_that_of_a_share() -> None:
    probs, labels = draw(400, 1.0, (0.0, 0.0))
    value, low, high = cross_validate(probs, probs, labels, CLASSES)["accuracy"].before
    assert high - low == pytest.approx(2 * 1.96 * (value * (1 - value) / 400) ** 0.5, rel=0.12)


def test_groups_widen_the_interval() -> None:
    """Ten copies of forty images say no more than forty."""
    probs, labels = (np.repeat(values, 10, axis=0) for values in draw(40, 1.0, (0.0, 0.0)))
    alone = cross_validate(probs, probs, labels, CLASSES)["accuracy"].before
    grouped = cross_validate(probs, probs, labels, CLASSES, [str(row // 10) for row in range(400)])["accuracy"].before
    assert grouped[0] == alone[0]
    assert grouped[2] - grouped[1] > 2.5 * (alone[2] - alone[1])


def test_folds_have_equal_shares_of_each_class_and_whole_groups() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [130, 70])
    folds = _split(labels, np.arange(200), rng)
    assert np.bincount(folds[labels == 0]).tolist() == [26] * FOLDS
    assert np.bincount(folds[labels == 1]).tolist() == [14] * FOLDS
    assert not np.array_equal(folds, _split(labels, np.arange(200), rng))
    ids = np.arange(200) // 5
    grouped = _split(labels, ids, rng)
    assert all(len(set(grouped[ids == group])) == 1 for group in range(40))
    assert np.ptp(np.bincount(grouped[labels == 1])) <= 5


def test_too_few_groups_of_a_class_are_refused() -> None:
    probs, labels = draw(100, 1.0, (0.0, 0.0))
    groups = [f"{label}{row % 4 if label else row}" for row, label in enumerate(labels)]
    with pytest.raises(DataError, match="the images of male are of 4 groups; cross-validation needs at least 5"):
        cross_validate(probs, probs, labels, CLASSES, groups)
