"""Every set of images that a model was measured on, in one table: of the card, the model file and the service."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gender_classifier.evaluate.extra.attributes import AttributeRow
from gender_classifier.evaluate.extra.groups import AttributeReport
from gender_classifier.evaluate.extra.sets import ScoredSet
from gender_classifier.evaluate.measure import Evaluation


@dataclass(frozen=True)
class MeasuredSet:
    """Accuracy with its 95 % interval on ``images`` images; ``recalls`` by class, without those that are not known."""

    name: str
    images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    recalls: Mapping[str, float]

    @property
    def lowest(self) -> tuple[float, str]:
        """The lowest of its figures, and which that is."""
        recalls = ((value, f"recall of {name}") for name, value in self.recalls.items())
        return min([(self.accuracy, "accuracy"), *recalls])


def list_measured(evaluation: Evaluation, scored: Mapping[str, ScoredSet], classes: Sequence[str]) -> list[MeasuredSet]:
    """Return test, its worst corruption, the further sets, each with its worst attribute; the lowest first.

    Args:
        evaluation: of the model.
        scored: the further sets by name.
        classes: of the model.
    """
    return sorted(_list_sets(evaluation, scored, classes), key=lambda found: found.lowest)


def _list_sets(
    evaluation: Evaluation, scored: Mapping[str, ScoredSet], classes: Sequence[str]
) -> Iterator[MeasuredSet]:
    metrics = evaluation.report.metrics
    recalls = {name: metrics[f"recall_{name}"] for name in classes}
    accuracy, low, high = (metrics[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
    yield MeasuredSet("test", len(evaluation.report.preds), accuracy, low, high, recalls)
    if corrupted := [row for row in evaluation.robustness if row.strength]:
        worst = min(corrupted, key=lambda row: row.accuracy)
        name = f"test, {worst.corruption} ({worst.setting})"
        yield MeasuredSet(name, worst.n, worst.accuracy, worst.accuracy_low, worst.accuracy_high, {})
    if evaluation.by_attribute:
        yield from _list_worst("test", evaluation.by_attribute, classes)
    for name, found in scored.items():
        yield _describe_row(name, found.by_attribute.rows[0], classes)
        yield from _list_worst(name, found.by_attribute, classes)


def _list_worst(name: str, found: AttributeReport, classes: Sequence[str]) -> Iterator[MeasuredSet]:
    """Yield the value on which the model is worst, if there are attributes."""
    if attributes := found.rows[1:]:
        # By the upper end of its interval: a value of one image that is wrong says little.
        row = min(attributes, key=lambda row: row.accuracy_high)
        yield _describe_row(f"{name}, {row.attribute} {row.value}", row, classes)


def _describe_row(name: str, row: AttributeRow, classes: Sequence[str]) -> MeasuredSet:
    pairs = zip(classes, row.recalls, strict=True)
    recalls = {class_name: recall for class_name, (_, recall, _, _) in pairs if recall is not None}
    return MeasuredSet(name, row.n, row.accuracy, row.accuracy_low, row.accuracy_high, recalls)
