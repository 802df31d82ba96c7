"""Every figure of the report on the test set. No files, no tracker."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.progress import show_progress
from gender_classifier.data.dataset import PackedSplit
from gender_classifier.evaluate.extra.attributes import ScoredImages
from gender_classifier.evaluate.extra.groups import AttributeReport, report_attributes
from gender_classifier.evaluate.inputs import Inputs, find_scorer
from gender_classifier.evaluate.mistakes import rank_label_issues
from gender_classifier.evaluate.params import EvaluateParams
from gender_classifier.evaluate.robustness import RobustnessRow, count_passes, measure_robustness, summarize
from gender_classifier.evaluate.unfamiliar.shares import Scorer, Unfamiliar, measure_unfamiliar
from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.calibration import softmax
from gender_classifier.metrics.corruptions import choose_images
from gender_classifier.metrics.scores import Report, evaluate
from gender_classifier.model.inference import compute_logits


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely wrong: probability of its label, and the class suggested."""

    prob: float
    split: str
    member: str
    label: int
    suggested: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Stranger:
    """An unfamiliar image, its label, and how many times the threshold its ``unfamiliarity`` is."""

    times: float
    split: str
    member: str
    label: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluation:
    """Everything measured.

    Attributes:
        report: on test.
        val_probs: float64 (N, C).
        robustness: the table of corruptions.
        suspects: by ``prob``.
        by_attribute: scores on test by attribute; None if the source has none.
        unfamiliar: None for a model that cannot tell.
        strangers: unfamiliar images of all splits, the most unfamiliar first; empty for a model that cannot tell.
    """

    report: Report
    val_probs: Floats
    robustness: list[RobustnessRow]
    suspects: list[Suspect]
    by_attribute: AttributeReport | None = None
    unfamiliar: Unfamiliar | None = None
    strangers: Sequence[Stranger] = ()


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
    by_attribute = _measure_attributes(inputs, report)
    report.metrics.update(by_attribute.groups.metrics if by_attribute else {})
    val_probs = softmax(compute_logits(model, spec, inputs.val.images) / spec.temperature)
    scorer = find_scorer(inputs)
    unfamiliar = measure_unfamiliar(scorer, test, inputs.val) if scorer else None
    report.metrics.update(unfamiliar.metrics if unfamiliar else {})
    suspects = _rank_suspects(inputs, val_probs, report.probs)
    strangers = _rank_strangers(inputs, unfamiliar, scorer) if scorer and unfamiliar else []
    return Evaluation(report, val_probs, rows, suspects, by_attribute, unfamiliar, strangers)


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


def _measure_attributes(inputs: Inputs, report: Report) -> AttributeReport | None:
    names, values = inputs.attributes.names, inputs.attributes.values
    return report_attributes(ScoredImages(inputs.test.labels, report, names, values)) if names else None


def _rank_suspects(inputs: Inputs, val_probs: Floats, test_probs: Floats) -> list[Suspect]:
    """Return the suspects of all splits together, the likeliest first."""
    judged = [("val", inputs.val, val_probs), ("test", inputs.test, test_probs)]
    if inputs.train_probs is not None:  # the model has seen train's labels, and would defend them
        judged.append(("train", inputs.train, inputs.train_probs))
    suspects = [suspect for name, split, probs in judged for suspect in _find_suspects(name, inputs, split, probs)]
    # A person has looked at the others: proposing them again would ask the same question at every training.
    undecided = [suspect for suspect in suspects if suspect.member not in inputs.decided]
    return sorted(undecided, key=lambda suspect: (suspect.prob, suspect.split, suspect.member))


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


def _rank_strangers(inputs: Inputs, found: Unfamiliar, scorer: Scorer) -> list[Stranger]:
    """Return the unfamiliar images of all splits together, the most unfamiliar first."""
    with show_progress(total=len(inputs.train.images), name="unfamiliar") as bar:
        train = scorer.score(inputs.train.images, on_batch=bar.update)
    strangers = [
        Stranger(float(scores[row] / found.threshold), name, member, int(split.labels[row]), split.images[row])
        for name, split, scores in (
            ("train", inputs.train, train), ("val", inputs.val, found.val), ("test", inputs.test, found.test)
        )
        for row in np.flatnonzero(scores > found.threshold).tolist()
        if (member := inputs.members[name][row]) not in inputs.decided
    ]  # fmt: skip
    return sorted(strangers, key=lambda stranger: (-stranger.times, stranger.split, stranger.member))


def measure_tta(logits: NDArray[np.floating], once: NDArray[np.floating], labels: Ints) -> dict[str, float]:
    """Say what the second look of ``model.infer`` costs and what it gains.

    ``tta_share`` is the share of images whose logits it changed, ``accuracy_without_tta`` the accuracy of one pass.

    Args:
        logits: float (N, C).
        once: float (N, C), of one pass over the same images.
        labels: int (N,).
    """
    return {
        "tta_share": float((logits != once).any(axis=1).mean()),
        "accuracy_without_tta": float((once.argmax(axis=1) == labels).mean()),
    }
