"""Every figure of the report on the test set. No files, no tracker."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.progress import show_progress
from gender_classifier.data.dataset import PackedSplit
from gender_classifier.evaluate.inputs import Inputs, find_score
from gender_classifier.evaluate.mistakes import rank_label_issues
from gender_classifier.evaluate.params import EvaluateParams
from gender_classifier.evaluate.robustness import (
    RobustnessRow,
    choose_images,
    count_passes,
    measure_robustness,
    summarize,
)
from gender_classifier.evaluate.tta import measure_tta
from gender_classifier.evaluate.unfamiliar.shares import Unfamiliar, measure_unfamiliar
from gender_classifier.metrics.arrays import Floats
from gender_classifier.metrics.calibration import softmax
from gender_classifier.metrics.scores import Report, evaluate
from gender_classifier.model.inference import compute_logits


@dataclass(frozen=True)
class Suspect:
    """An image of val or test whose label is likely wrong: probability of its label, and the class suggested."""

    prob: float
    split: str
    member: str
    label: int
    suggested: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluation:
    """The ``report`` on test, ``val_probs`` float64 (N, C), the table of corruptions, and the suspects by ``prob``.

    ``unfamiliar`` is None for a model that cannot tell.
    """

    report: Report
    val_probs: Floats
    robustness: list[RobustnessRow]
    suspects: list[Suspect]
    unfamiliar: Unfamiliar | None = None


def measure(inputs: Inputs, params: EvaluateParams) -> Evaluation:
    """Run the model over test and val, and measure it.

    Raises:
        DataError: the logits are not finite, or a class has no image.
    """
    model, spec, test = inputs.model, inputs.spec, inputs.test
    with show_progress(total=len(test.images), name="test") as bar:
        once = compute_logits(model, replace(spec, tta_margin=0.0), test.images, on_batch=bar.update)
    logits = _look_again(inputs, once)
    report = evaluate(logits / spec.temperature, test.labels, classes=spec.classes, num_bins=params.ece_bins)
    report.metrics.update(measure_tta(logits, once, test.labels))
    rows = _measure_robustness(inputs, logits, params.robustness_images)
    report.metrics.update(summarize(rows))
    val_probs = softmax(compute_logits(model, spec, inputs.val.images) / spec.temperature)
    # Train's labels the model has seen, and would defend.
    suspects = [
        *_find_suspects("val", inputs, inputs.val, val_probs), *_find_suspects("test", inputs, test, report.probs)
    ]  # fmt: skip
    suspects.sort(key=lambda suspect: (suspect.prob, suspect.split, suspect.member))
    unfamiliar = None
    if (score := find_score(inputs)) and inputs.unfamiliarity is not None:
        unfamiliar = measure_unfamiliar(score, float(inputs.unfamiliarity.threshold), test, inputs.val)
        report.metrics.update(unfamiliar.metrics)
    return Evaluation(report, val_probs, rows, suspects, unfamiliar)


def _look_again(inputs: Inputs, once: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of test with test-time augmentation, float32 (N, C), from those of one pass.

    Only the images in doubt take another pass; the others keep their logits.
    """
    highest = np.sort(once, axis=1)
    doubtful = np.flatnonzero(highest[:, -1] - highest[:, -2] < inputs.spec.tta_margin)
    logits = once.copy()
    if len(doubtful):
        logits[doubtful] = compute_logits(inputs.model, inputs.spec, inputs.test.images[doubtful])
    return logits


def _measure_robustness(inputs: Inputs, logits: NDArray[np.float32], most: int) -> list[RobustnessRow]:
    """Return the table of corruptions, on at most ``most`` images; empty if none are asked for.

    ``logits`` are those of all test images, float32 (N, C).
    """
    test, spec = inputs.test, inputs.spec
    chosen = choose_images(test.labels, most)
    if not len(chosen):
        return []
    with show_progress(total=count_passes() * len(chosen), name="robustness") as bar:
        return list(
            measure_robustness(
                lambda pixels: compute_logits(inputs.model, spec, pixels),
                np.asarray(test.images[chosen]),
                test.labels[chosen],
                logits[chosen],
                on_images=bar.update,
            )
        )


def _find_suspects(name: str, inputs: Inputs, split: PackedSplit, probs: Floats) -> list[Suspect]:
    members = inputs.members[name]
    return [
        Suspect(
            float(probs[row, split.labels[row]]),
            name,
            members[row],
            int(split.labels[row]),
            int(probs[row].argmax()),
            split.images[row],
        )
        for row in rank_label_issues(probs, split.labels)
    ]
