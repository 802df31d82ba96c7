"""The ranking of suspects against cleanlab, the library of confident learning's authors; skipped where it is absent."""

import numpy as np
import pytest

from gender_classifier.evaluate.mistakes import rank_label_issues
from gender_classifier.metrics.calibration import softmax

cleanlab = pytest.importorskip("cleanlab.filter", reason="needs cleanlab: pip install cleanlab==2.9.0")


def draw(count: int, classes: int, wrong: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities of a fair model, labels of which a share is wrong, and which these are."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, count, p=rng.dirichlet(np.full(classes, 5.0)))
    probs = softmax(rng.normal(size=(count, classes)) + 3 * np.eye(classes)[truth])
    is_wrong = rng.random(count) < wrong
    labels = np.where(is_wrong, (truth + rng.integers(1, classes, count)) % classes, truth)
    return probs, labels, is_wrong


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_suspects_and_their_order_are_cleanlabs(classes: int, seed: int) -> None:
    probs, labels, _ = draw(3000, classes, 0.08, seed)
    expected = cleanlab.find_label_issues(
        labels, probs, filter_by="predicted_neq_given", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert rank_label_issues(probs, labels).tolist() == expected.tolist()


@pytest.mark.parametrize("wrong", [0.04, 0.08])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_no_fewer_wrong_labels_are_in_the_first_tenth_than_with_cleanlabs_defaults(classes: int, wrong: float) -> None:
    probs, labels, is_wrong = draw(3000, classes, wrong, 5)
    default = cleanlab.find_label_issues(labels, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
    assert is_wrong[rank_label_issues(probs, labels)[:300]].sum() >= is_wrong[default[:300]].sum()
