"""The report on the test set as files, figures and MLflow metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath

from gender_classifier.common.artifacts import Artifact, Run, Table, tabulate
from gender_classifier.common.figures import Figure, confusion_matrix, contact_sheet, format_share
from gender_classifier.evaluate.extra.attributes import attribute_columns, flatten_row
from gender_classifier.evaluate.extra.report import draw_attributes, tag_groups
from gender_classifier.evaluate.extra.sets import ScoredSet
from gender_classifier.evaluate.figures import reliability, robustness, roc_curve
from gender_classifier.evaluate.inputs import Inputs
from gender_classifier.evaluate.measure import Evaluation, Stranger, Suspect
from gender_classifier.evaluate.measured import MeasuredSet
from gender_classifier.evaluate.mistakes import worst_mistakes
from gender_classifier.evaluate.model_card import write_card
from gender_classifier.evaluate.params import EvaluateParams
from gender_classifier.evaluate.robustness import RobustnessRow
from gender_classifier.evaluate.unfamiliar.shares import UnfamiliarRow, count_unfamiliar, list_rows, tabulate_unfamiliar
from gender_classifier.metrics.calibration import ReliabilityBin, reliability_points
from gender_classifier.metrics.curves import (
    ThresholdRow,
    list_roc_curves,
    operating_point,
    pick_positive,
    roc_points,
    threshold_points,
)
from gender_classifier.metrics.scores import as_keys, select_headlines
from gender_classifier.metrics.tables import tabulate_confusion, tabulate_predictions


def describe_evaluation(
    inputs: Inputs,
    evaluation: Evaluation,
    scored: Mapping[str, ScoredSet],
    measured: Sequence[MeasuredSet],
    params: EvaluateParams,
) -> Iterator[Artifact]:
    """Yield metrics, tables, predictions, the model card and the figures."""
    report, labels, classes = evaluation.report, inputs.test.labels, inputs.spec.classes
    members = inputs.members["test"]
    scores, positives = pick_positive(report.probs, labels)
    roc = roc_points(scores, positives)
    bins = reliability_points(report.probs, labels, num_bins=params.ece_bins)
    headlines: dict[str, object] = {"test": select_headlines(report.metrics)}
    if scored:
        headlines["extra"] = {name: select_headlines(found.report.metrics) for name, found in scored.items()}
    yield Artifact("metrics/evaluate.json", headlines)
    yield Artifact("metrics/test_report.json", report.metrics | _describe_groups(inputs, evaluation), "metrics")
    yield Artifact("metrics/test_confusion.json", tabulate_confusion(report.confusion, classes), "metrics")
    yield Artifact("metrics/roc.csv", Table(["false_positive_rate", "true_positive_rate", "threshold"], roc), "metrics")
    yield Artifact("metrics/reliability.csv", tabulate(ReliabilityBin, bins), "metrics")
    thresholds = threshold_points(scores, positives)
    yield Artifact("metrics/thresholds.csv", tabulate(ThresholdRow, thresholds), "metrics")
    yield Artifact("metrics/robustness.csv", tabulate(RobustnessRow, evaluation.robustness), "metrics")
    rows = evaluation.by_attribute.list_rows() if evaluation.by_attribute else []
    table = Table(attribute_columns(classes), map(flatten_row, rows))
    yield Artifact("metrics/test_attributes.csv", table, "metrics")
    unfamiliar = _list_unfamiliar(evaluation, scored)
    yield Artifact("metrics/unfamiliar.csv", tabulate_unfamiliar(unfamiliar), "metrics")
    predictions = tabulate_predictions(members, labels, report, classes)
    yield Artifact("data/predictions/test.csv", predictions, "predictions")
    yield Artifact("data/predictions/label_issues.csv", _tabulate_suspects(evaluation.suspects, classes), "predictions")
    strangers = _tabulate_strangers(evaluation.strangers, classes)
    yield Artifact("data/predictions/unfamiliar.csv", strangers, "predictions")
    # The copy in MLflow says more: see register_run.
    yield Artifact("models/model_card.md", _build_card(inputs, evaluation, measured, unfamiliar))
    figures = {
        "test_confusion": confusion_matrix(report.confusion, classes, "Test set", report.interval),
        "roc": roc_curve(
            list_roc_curves(report.probs, labels, classes), report.metrics["roc_auc"], operating_point(report.confusion)
        ),
        "reliability": reliability(bins, report.metrics["ece"], len(classes)),
    }
    if evaluation.robustness:
        corrupted = [asdict(row) for row in evaluation.robustness]
        figures["robustness"] = robustness(corrupted, report.metrics["accuracy"], len(labels))
    for name, figure in figures.items():
        yield Artifact(f"metrics/figures/evaluate/{name}.png", figure, "")
    if evaluation.by_attribute:
        yield from draw_attributes("test", evaluation.by_attribute, classes, "Test set")
    sheets = {
        "worst_mistakes": _draw_mistakes(inputs, evaluation, params.worst_mistakes),
        "label_issues": _draw_suspects(inputs, evaluation.suspects, params.worst_mistakes),
        "unfamiliar": _draw_strangers(evaluation.strangers, classes, params.worst_mistakes),
    }
    for name, sheet in sheets.items():
        yield Artifact(f"metrics/sheets/evaluate/{name}.png", sheet, "")


def log_evaluation(run: Run, inputs: Inputs, evaluation: Evaluation, scored: Mapping[str, ScoredSet]) -> None:
    """Log the headlines as ``test/...`` and ``extra/NAME/...``, the names of groups, and the test set as an input."""
    reports = {"test": evaluation.report} | {f"extra/{name}": found.report for name, found in scored.items()}
    for prefix, report in reports.items():
        headlines = as_keys(select_headlines(report.metrics))
        run.log_metrics({f"{prefix}/{key}": value for key, value in headlines.items()})
    counts = {"test": len(evaluation.report.preds)}
    groups = {f"extra.{name}": found.by_attribute for name, found in scored.items()}
    run.set_tags(tag_groups(groups | ({"test": evaluation.by_attribute} if evaluation.by_attribute else {})))
    run.log_dataset("test", inputs.info.manifest_sha256, "evaluation", counts)


def tell(evaluation: Evaluation, difference: float, registered: str) -> Iterator[str]:
    """Yield the lines that the stage prints.

    Args:
        evaluation: of the model.
        difference: of the ONNX file's probabilities, at most.
        registered: version and decision of the registry.
    """
    metrics = evaluation.report.metrics
    yield (
        f"evaluate: test accuracy {metrics['accuracy']:.4f} "
        f"(95 % interval {metrics['accuracy_low']:.4f} to {metrics['accuracy_high']:.4f}) "
        f"on {len(evaluation.report.preds):,} images"
    )
    yield f"evaluate: model.onnx predicts the same, with probabilities within {difference:.1e}"
    yield f"evaluate: {registered}"


def _describe_groups(inputs: Inputs, evaluation: Evaluation) -> dict[str, object]:
    if not evaluation.by_attribute:
        return {}
    groups, left_out = evaluation.by_attribute.groups.describe(), list(inputs.attributes.left_out)
    return {"groups": groups, "columns_left_out": left_out}


def _list_unfamiliar(evaluation: Evaluation, scored: Mapping[str, ScoredSet]) -> list[UnfamiliarRow]:
    flags = {name: found.unfamiliar for name, found in scored.items()}
    rows = {name: count_unfamiliar(name, found) for name, found in flags.items() if found is not None}
    return list_rows(evaluation.unfamiliar, rows)


def _build_card(
    inputs: Inputs, evaluation: Evaluation, measured: Sequence[MeasuredSet], unfamiliar: Sequence[UnfamiliarRow]
) -> str:
    return write_card(
        source=inputs.source,
        params={"source": inputs.source, **inputs.params},
        spec=inputs.spec,
        info=inputs.info,
        counts={name: len(members) for name, members in inputs.members.items()},
        metrics=evaluation.report.metrics,
        measured=measured,
        unfamiliar=unfamiliar,
        best=inputs.best,
        curves=inputs.curves,
    )


def _tabulate_suspects(suspects: Sequence[Suspect], classes: Sequence[str]) -> Table:
    rows = [[one.split, one.member, classes[one.label], classes[one.suggested], f"{one.prob:.6f}"] for one in suspects]
    return Table(["split", "member", "label", "suggested", "prob_label"], rows)


def _tabulate_strangers(strangers: Sequence[Stranger], classes: Sequence[str]) -> Table:
    rows = [[one.split, one.member, classes[one.label], f"{one.times:.4f}"] for one in strangers]
    return Table(["split", "member", "label", "times_threshold"], rows)


def _draw_strangers(strangers: Sequence[Stranger], classes: Sequence[str], most: int) -> Figure:
    shown = strangers[:most]
    captions = [
        f"{one.split}: {PurePosixPath(one.member).name}\nlabelled {classes[one.label]};\n"
        f"{one.times:.2f} times the limit"
        for one in shown
    ]
    title = f"The {len(shown)} most unfamiliar of {len(strangers):,} unfamiliar images in train, val and test"
    return contact_sheet([one.image for one in shown], captions, title)


def _draw_suspects(inputs: Inputs, suspects: Sequence[Suspect], most: int) -> Figure:
    shown, classes = suspects[:most], inputs.spec.classes
    places = "val and test" if inputs.train_probs is None else "train, val and test"
    captions = [
        f"{one.split}: {PurePosixPath(one.member).name}\nlabelled {classes[one.label]};\n"
        f"the model gives this\nlabel {format_share(one.prob)}"
        for one in shown
    ]
    title = f"The {len(shown)} likeliest of {len(suspects):,} suspected wrong labels in {places}"
    return contact_sheet([one.image for one in shown], captions, title)


def _draw_mistakes(inputs: Inputs, evaluation: Evaluation, most: int) -> Figure:
    report, test, classes = evaluation.report, inputs.test, inputs.spec.classes
    rows = worst_mistakes(report, test.labels, most)
    total = int((report.preds != test.labels).sum())
    captions = [
        f"{PurePosixPath(inputs.members['test'][row]).name}\n{classes[test.labels[row]]}, called\n"
        f"{classes[report.preds[row]]} at {format_share(report.probs[row].max())}"
        for row in rows
    ]
    title = f"The {len(rows)} most confident of {total:,} mistakes on the test set"
    return contact_sheet([test.images[row] for row in rows], captions, title)
