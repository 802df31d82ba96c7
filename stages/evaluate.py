"""Stage `evaluate`: measure the model on the test set, export it, register it.

    dvc repro evaluate                                 seconds
    dvc metrics show; dvc plots show

Reads the model, its curves and the test arrays. Writes metrics/evaluate.json, metrics/test_report.json,
metrics/test_confusion.json, metrics/roc.csv, metrics/reliability.csv, metrics/thresholds.csv, metrics/robustness.csv,
data/predictions/test.csv, data/predictions/label_issues.csv, metrics/figures/evaluate/, models/model.onnx and
models/model_card.md; of the further sets that `evaluate.extra` names, metrics/extra.json, metrics/extra_attributes.csv
and data/predictions/extra.csv.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import _source  # noqa: F401  before anything of the library
from gender_classifier import plots
from gender_classifier.checkout import find_main_root
from gender_classifier.checkpoints import discard_checkpoints
from gender_classifier.dataset import DatasetInfo, PackedSplit, open_split, read_digests, read_index, read_info
from gender_classifier.errors import DataError
from gender_classifier.evaluation import (
    Floats,
    Report,
    evaluate,
    measure_tta,
    rank_label_issues,
    reliability_points,
    roc_points,
    softmax,
    threshold_points,
    worst_mistakes,
)
from gender_classifier.export import check_export, export_onnx
from gender_classifier.file_names import describe_value
from gender_classifier.files import read_json, short_digest, write_csv, write_json, write_text
from gender_classifier.labelled_files import open_labelled_set
from gender_classifier.labelled_sets import (
    AttributeRow,
    attribute_columns,
    describe_set,
    flatten_row,
    list_predictions,
    list_unreadable,
    prediction_columns,
    score_set,
    tabulate_attributes,
)
from gender_classifier.layout import SPLITS, Layout
from gender_classifier.model import ModelSpec, compute_logits, load_model
from gender_classifier.model_card import describe_limits, write_card
from gender_classifier.monitoring import (
    Reference,
    measure_predictions,
    parse_reference,
    start_histogram,
    to_jsonable,
)
from gender_classifier.params import EvaluateParams, Params, flatten_params
from gender_classifier.predictions import tabulate_confusion, write_predictions
from gender_classifier.registry import REGISTERED_MODEL, register_model, settle_champion
from gender_classifier.robustness import (
    CORRUPTIONS,
    RobustnessRow,
    choose_images,
    mean_accuracy,
    measure_robustness,
)
from gender_classifier.spreadsheet import write_table
from gender_classifier.stage import run_stage
from gender_classifier.terminal import printable
from gender_classifier.tracking import TrackedRun, track
from gender_classifier.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The figures that `dvc metrics` and `dvc exp show` print; metrics/test_report.json has all.
_HEADLINES = ("accuracy", "accuracy_low", "accuracy_high", "loss", "roc_auc", "ece", "robust_accuracy")


def main(layout: Layout, params: Params) -> None:
    """Write every figure of the report, mirror it to the run that trained the model, and register the model."""
    own = params.evaluate
    info = read_info(layout.dataset_path)
    model, spec = load_model(layout.model_path)
    model.to(memory_format=torch.channels_last)  # as its input is: an eighth quicker
    test = open_split(layout.images_path("test"), layout.labels_path("test"))
    _check_fit(layout, spec, info)
    run_id = str(read_json(layout.mlflow_run_path).get("run_id"))
    flat = flatten_params(layout.params_path)
    for name, path in _extra_paths(layout, own).items():  # a slip is told before minutes of work
        open_labelled_set(name, path, spec.classes).close()
    with track("evaluate", layout.root, params=flat, resume=run_id) as run:
        with tqdm(total=len(test.images), unit="img", desc="test", disable=None, dynamic_ncols=True) as bar:
            logits = compute_logits(model, spec, test.images, on_batch=bar.update)
        report = evaluate(logits / spec.temperature, test.labels, classes=spec.classes, num_bins=own.ece_bins)
        once = compute_logits(model, replace(spec, tta_margin=0.0), test.images) if spec.tta_margin else logits
        report.metrics.update(measure_tta(logits, once, test.labels))
        report.metrics.update(_measure_robustness(layout, model, spec, test, own.robustness_images))
        _write_files(layout, spec, test, report, own)
        val = open_split(layout.images_path("val"), layout.labels_path("val"))
        val_probs = softmax(compute_logits(model, spec, val.images) / spec.temperature)
        _find_label_issues(layout, spec, {"val": (val, val_probs), "test": (test, report.probs)}, own.worst_mistakes)
        extra = _evaluate_extra(layout, model, spec, own, params.verify.max_pixels)
        reference = _complete_reference(layout, spec, val_probs)
        export_onnx(layout.onnx_path, model, spec, _describe_model(info, report, flat, reference))
        difference = check_export(layout.onnx_path, test.images, report.probs)
        _write_card(layout, spec, info, report, flat)
        _mirror(layout, run, report, info)
        for name, one in extra.items():
            run.log_metrics({f"extra/{name}/{key}": value for key, value in one.items()})
        version = _register(layout, run, spec, report, info)
        decision = settle_champion(run.client, layout.root, version, own.promotion)
    discard_checkpoints(layout.checkpoints_dir, run_id)
    metrics = report.metrics
    print(
        f"evaluate: test accuracy {metrics['accuracy']:.4f} "
        f"(95 % interval {metrics['accuracy_low']:.4f} to {metrics['accuracy_high']:.4f}) "
        f"on {len(test.images):,} images"
    )
    print(f"evaluate: model.onnx predicts the same, with probabilities within {difference:.1e}")
    print(f"evaluate: version {version} of {REGISTERED_MODEL}, {decision.reason}")


def _check_fit(layout: Layout, spec: ModelSpec, info: DatasetInfo) -> None:
    if (spec.classes, spec.image_size) != (info.classes, info.image_size):
        raise DataError(
            f"{layout.model_path}: made for {spec.image_size} px and {', '.join(spec.classes)}, the arrays have "
            f"{info.image_size} px and {', '.join(info.classes)}; run `dvc repro`"
        )


def _write_files(layout: Layout, spec: ModelSpec, test: PackedSplit, report: Report, own: EvaluateParams) -> None:
    write_json(layout.evaluate_report_path, {"test": _headlines(report)})
    write_json(layout.test_report_path, report.metrics)
    write_json(layout.test_confusion_path, tabulate_confusion(report.confusion, spec.classes))
    members = read_index(layout.index_path("test"))
    write_predictions(layout.test_predictions_path, members, test.labels, report, spec.classes)
    # Two classes: the second is the positive one.
    roc = roc_points(report.probs[:, 1], test.labels)
    write_csv(layout.roc_path, ["false_positive_rate", "true_positive_rate", "threshold"], roc)
    bins = reliability_points(report.probs, test.labels, num_bins=own.ece_bins)
    write_csv(layout.reliability_path, list(asdict(bins[0])), [list(asdict(one).values()) for one in bins])
    thresholds = threshold_points(report.probs[:, 1], test.labels)
    write_csv(layout.thresholds_path, list(asdict(thresholds[0])), [list(asdict(one).values()) for one in thresholds])
    figures = {
        "test_confusion": plots.confusion_matrix(report.confusion, spec.classes, "Test set"),
        "roc": plots.roc_curve(roc, report.metrics["roc_auc"], spec.classes[1]),
        "reliability": plots.reliability(bins, report.metrics["ece"]),
        "worst_mistakes": _draw_mistakes(spec, test, report, members, own.worst_mistakes),
    }
    for name, figure in figures.items():
        plots.save_figure(figure, layout.figures_dir("evaluate") / f"{name}.png")


def _headlines(report: Report) -> dict[str, float]:
    return {key: report.metrics[key] for key in _HEADLINES if key in report.metrics}


def _describe_model(
    info: DatasetInfo, report: Report, flat: Mapping[str, object], reference: Reference
) -> dict[str, str]:
    """Return what the model file says of itself to the predictor and the service; no time, host or path."""
    return {
        "data_digest": short_digest(info.manifest_sha256),
        "version": __version__,
        "metrics": json.dumps(_headlines(report)),
        "limits": describe_limits(_name_source(flat)),
        "reference": json.dumps(to_jsonable(reference)),
    }


def _complete_reference(layout: Layout, spec: ModelSpec, val_probs: Floats) -> Reference:
    """Add what the model says of val: unseen by its weights, and of the pictures that train was drawn from."""
    reference = parse_reference(layout.reference_path.read_text(encoding="utf-8"), str(layout.reference_path))
    for name, values in measure_predictions(val_probs).items():
        reference[name] = start_histogram(name, "val", spec.classes)
        reference[name].add(values)
    return reference


def _name_source(flat: Mapping[str, object]) -> str:
    return describe_value(flat["source"])


def _draw_mistakes(spec: ModelSpec, test: PackedSplit, report: Report, members: list[str], most: int) -> Figure:
    rows = worst_mistakes(report, test.labels, most)
    total = int((report.preds != test.labels).sum())
    captions = [
        f"{PurePosixPath(members[row]).name}\n{spec.classes[test.labels[row]]}, called\n"
        f"{spec.classes[report.preds[row]]} at {report.probs[row].max():.1%}"
        for row in rows
    ]
    title = f"The {len(rows)} most confident of {total:,} mistakes on the test set"
    return plots.contact_sheet([test.images[row] for row in rows], captions, title)


def _measure_robustness(
    layout: Layout, model: nn.Module, spec: ModelSpec, test: PackedSplit, most: int
) -> dict[str, float]:
    """Write the table of corruptions and its picture; return the mean accuracy. No images asked for, an empty table."""
    header = [field.name for field in fields(RobustnessRow)]
    chosen = choose_images(test.labels, most)
    if not len(chosen):
        write_csv(layout.robustness_path, header, [])
        return {}
    images, labels = np.asarray(test.images[chosen]), test.labels[chosen]
    passes = 1 + 3 * len(CORRUPTIONS)
    with tqdm(total=passes * len(chosen), unit="img", desc="robustness", disable=None, dynamic_ncols=True) as bar:
        rows = list(
            measure_robustness(lambda pixels: compute_logits(model, spec, pixels), images, labels, on_images=bar.update)
        )
    write_csv(layout.robustness_path, header, [list(asdict(row).values()) for row in rows])
    plots.save_figure(
        plots.robustness([asdict(row) for row in rows]), layout.figures_dir("evaluate") / "robustness.png"
    )
    return {"robust_accuracy": mean_accuracy(rows)}


def _find_label_issues(
    layout: Layout, spec: ModelSpec, splits: Mapping[str, tuple[PackedSplit, Floats]], most: int
) -> None:
    """List the labels of val and test that are likely wrong; train's the model has seen, and would defend."""
    found = []
    for name, (split, probs) in splits.items():
        members = read_index(layout.index_path(name))
        for row in rank_label_issues(probs, split.labels):
            label = int(split.labels[row])
            found.append(
                (float(probs[row, label]), name, members[row], label, int(probs[row].argmax()), split.images[row])
            )
    found.sort(key=lambda one: one[:3])
    rows = [
        [split, member, spec.classes[label], spec.classes[other], f"{prob:.6f}"]
        for prob, split, member, label, other, _ in found
    ]
    write_table(layout.label_issues_path, ["split", "member", "label", "suggested", "prob_label"], rows)
    shown = found[:most]
    captions = [
        f"{split}: {PurePosixPath(member).name}\nlabelled {spec.classes[label]},\nat {prob:.2%}"
        for prob, split, member, label, _, _ in shown
    ]
    title = f"The {len(shown)} likeliest of {len(found):,} suspected wrong labels in val and test"
    sheet = plots.contact_sheet([image for *_, image in shown], captions, title)
    plots.save_figure(sheet, layout.figures_dir("evaluate") / "label_issues.png")


def _extra_paths(layout: Layout, own: EvaluateParams) -> dict[str, Path]:
    base_dir = find_main_root(layout.root)
    return {name: base_dir / Path(path).expanduser() for name, path in own.extra.items()}


def _evaluate_extra(
    layout: Layout, model: nn.Module, spec: ModelSpec, own: EvaluateParams, max_pixels: int
) -> dict[str, dict[str, float]]:
    """Measure the model on each further set; return the figures of each. No sets, empty tables."""
    seen = {sha256: split for split in ("train", "val") for sha256 in read_digests(layout.index_path(split))}
    figures, reports = dict[str, dict[str, float]](), dict[str, object]()
    table, predictions = list[list[object]](), list[list[object]]()
    for name, path in _extra_paths(layout, own).items():
        with (
            open_labelled_set(name, path, spec.classes) as labelled,
            tqdm(total=len(labelled.images), unit="img", desc=name, disable=None, dynamic_ncols=True) as bar,
        ):
            scored = score_set(
                labelled,
                lambda pixels: compute_logits(model, spec, pixels) / spec.temperature,
                spec.classes,
                size=spec.image_size,
                max_pixels=max_pixels,
                seen=seen,
                num_bins=own.ece_bins,
                on_images=bar.update,
            )
        attributes = tabulate_attributes(scored)
        figures[name] = scored.report.metrics
        reports[name] = describe_set(scored, own.extra[name], spec.classes)
        table += [[name, *flatten_row(row)] for row in attributes]
        predictions += list_predictions(scored, spec.classes)
        _draw_extra(layout, name, scored.report, attributes, spec)
        print(
            f"evaluate: {printable(name)}: accuracy {scored.report.metrics['accuracy']:.4f} on {len(scored.rows):,} of "
            f"{len(labelled.images):,} images"
        )
        if unreadable := list_unreadable(labelled, scored.reading):
            print(printable(f"evaluate: {name}: cannot be read: {unreadable}"), file=sys.stderr)
    write_json(layout.extra_report_path, reports)
    write_table(layout.extra_attributes_path, ["set", *attribute_columns(spec.classes)], table)
    write_table(layout.extra_predictions_path, prediction_columns(spec.classes), predictions)
    return figures


def _draw_extra(layout: Layout, name: str, report: Report, attributes: Sequence[AttributeRow], spec: ModelSpec) -> None:
    folder = layout.figures_dir("evaluate")
    matrix = plots.confusion_matrix(report.confusion, spec.classes, f"Further set {name}")
    plots.save_figure(matrix, folder / f"extra_{name}_confusion.png")
    if len(attributes) > 1:
        figure = plots.attribute_table([asdict(row) for row in attributes], spec.classes, f"Further set {name}")
        plots.save_figure(figure, folder / f"extra_{name}_attributes.png")


def _write_card(layout: Layout, spec: ModelSpec, info: DatasetInfo, report: Report, flat: Mapping[str, object]) -> None:
    with layout.curves_path.open(encoding="utf-8", newline="") as file:
        curves = list(csv.DictReader(file))
    counts = {name: len(read_index(layout.index_path(name))) for name in SPLITS}
    card = write_card(
        source=_name_source(flat),
        params={key: value for key, value in flat.items() if not key.startswith(("ingest.", "verify.", "evaluate."))},
        spec=spec,
        info=info,
        counts=counts,
        report=report,
        best=read_json(layout.train_report_path),
        curves=curves,
    )
    write_text(layout.card_path, card)


def _mirror(layout: Layout, run: TrackedRun, report: Report, info: DatasetInfo) -> None:
    run.log_metrics({f"test/{key}": value for key, value in report.metrics.items()})
    run.log_dataset("test", info.manifest_sha256, "evaluation", {"test": len(report.preds)})
    for path in (
        layout.test_report_path,
        layout.test_confusion_path,
        layout.roc_path,
        layout.reliability_path,
        layout.thresholds_path,
        layout.robustness_path,
        layout.extra_report_path,
        layout.extra_attributes_path,
    ):
        run.log_artifact(path, "metrics")
    for path in (layout.test_predictions_path, layout.label_issues_path, layout.extra_predictions_path):
        run.log_artifact(path, "predictions")
    run.log_artifact(layout.figures_dir("evaluate"))
    run.log_artifact(layout.card_path)


def _register(layout: Layout, run: TrackedRun, spec: ModelSpec, report: Report, info: DatasetInfo) -> str:
    best = read_json(layout.train_report_path)
    tags = {
        "data.digest": short_digest(info.manifest_sha256),
        **{f"{name}.digest": short_digest(info.split_sha256[name]) for name in ("val", "test")},
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
        "git.commit": run.commit,
    }
    return register_model(
        run.client,
        run.run_id,
        layout.onnx_path,
        image_size=spec.image_size,
        num_classes=len(spec.classes),
        metrics={key: best[key] for key in ("best_val_accuracy", "best_val_loss")}
        | {f"test/{key}": value for key, value in report.metrics.items()},
        tags=tags,
        card=layout.card_path,
    )


if __name__ == "__main__":
    run_stage("evaluate", main, __doc__)
