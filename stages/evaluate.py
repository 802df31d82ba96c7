"""Stage `evaluate`: measure the model on the test set, export it, register it.

    dvc repro evaluate                                 seconds
    dvc metrics show; dvc plots show

Reads the model and the test arrays. Writes metrics/evaluate.json, metrics/test_confusion.json, metrics/roc.csv,
metrics/reliability.csv, data/predictions/test.csv, metrics/figures/evaluate/ and models/model.onnx.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import PurePosixPath

from matplotlib.figure import Figure
from tqdm import tqdm

from gender_classifier import plots
from gender_classifier.dataset import DatasetInfo, PackedSplit, open_split, read_index, read_info
from gender_classifier.errors import DataError
from gender_classifier.evaluation import Report, evaluate, reliability_points, roc_points, worst_mistakes
from gender_classifier.export import check_export, export_onnx
from gender_classifier.files import read_json, write_csv, write_json
from gender_classifier.layout import Layout
from gender_classifier.model import ModelSpec, compute_logits, load_model
from gender_classifier.params import EvaluateParams, Params
from gender_classifier.predictions import tabulate_confusion, write_predictions
from gender_classifier.stage import run_stage
from gender_classifier.tracking import TrackedRun, short_digest, track


def main(layout: Layout, params: Params) -> None:
    """Write every figure of the report, mirror it to the run that trained the model, and register the model."""
    own = params.evaluate
    info = read_info(layout.dataset_path)
    model, spec = load_model(layout.model_path)
    test = open_split(layout.images_path("test"), layout.labels_path("test"))
    _check_fit(layout, spec, info)
    run_id = str(read_json(layout.mlflow_run_path).get("run_id"))
    with track("evaluate", layout.root, resume=run_id) as run:
        with tqdm(total=len(test.images), unit="img", desc="test", disable=None, dynamic_ncols=True) as bar:
            logits = compute_logits(model, spec, test.images, on_batch=bar.update)
        report = evaluate(logits, test.labels, classes=spec.classes, num_bins=own.ece_bins)
        _write_files(layout, spec, test, report, own)
        digest = short_digest(info.manifest_sha256)
        export_onnx(layout.onnx_path, model, spec, {"data_digest": digest})
        check_export(layout.onnx_path, test.images, report.probs)
        version = _mirror(layout, run, spec, report, info)
    metrics = report.metrics
    print(
        f"evaluate: test accuracy {metrics['accuracy']:.4f} "
        f"(95 % interval {metrics['accuracy_low']:.4f} to {metrics['accuracy_high']:.4f}) "
        f"on {len(test.images):,} images; registered as version {version}"
    )


def _check_fit(layout: Layout, spec: ModelSpec, info: DatasetInfo) -> None:
    if (spec.classes, spec.image_size) != (info.classes, info.image_size):
        raise DataError(
            f"{layout.model_path}: made for {spec.image_size} px and {', '.join(spec.classes)}, the arrays have "
            f"{info.image_size} px and {', '.join(info.classes)}; run `dvc repro`"
        )


def _write_files(layout: Layout, spec: ModelSpec, test: PackedSplit, report: Report, own: EvaluateParams) -> None:
    write_json(layout.evaluate_report_path, {"test": report.metrics})
    write_json(layout.test_confusion_path, tabulate_confusion(report.confusion, spec.classes))
    members = read_index(layout.index_path("test"))
    write_predictions(layout.test_predictions_path, members, test.labels, report, spec.classes)
    # Two classes: the second is the positive one.
    roc = roc_points(report.probs[:, 1], test.labels)
    write_csv(layout.roc_path, ["false_positive_rate", "true_positive_rate", "threshold"], roc)
    bins = reliability_points(report.probs, test.labels, num_bins=own.ece_bins)
    write_csv(layout.reliability_path, list(asdict(bins[0])), [list(asdict(one).values()) for one in bins])
    figures = {
        "test_confusion": plots.confusion_matrix(report.confusion, spec.classes, "Test set"),
        "roc": plots.roc_curve(roc, report.metrics["roc_auc"], spec.classes[1]),
        "reliability": plots.reliability(bins, report.metrics["ece"]),
        "worst_mistakes": _draw_mistakes(spec, test, report, members, own.worst_mistakes),
    }
    for name, figure in figures.items():
        plots.save_figure(figure, layout.figures_dir("evaluate") / f"{name}.png")


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


def _mirror(layout: Layout, run: TrackedRun, spec: ModelSpec, report: Report, info: DatasetInfo) -> str:
    metrics = {f"test/{key}": value for key, value in report.metrics.items()}
    run.log_dataset("test", info.manifest_sha256, "evaluation", {"test": len(report.preds)})
    for path in (layout.evaluate_report_path, layout.test_confusion_path, layout.roc_path, layout.reliability_path):
        run.log_artifact(path, "metrics")
    run.log_artifact(layout.test_predictions_path, "predictions")
    run.log_artifact(layout.figures_dir("evaluate"))
    tags = {"data.digest": short_digest(info.manifest_sha256), "dvc.exp": os.environ.get("DVC_EXP_NAME", "")}
    return run.register_model(
        layout.onnx_path,
        image_size=spec.image_size,
        num_classes=len(spec.classes),
        metrics=metrics,
        tags={key: value for key, value in tags.items() if value},
    )


if __name__ == "__main__":
    run_stage("evaluate", main, __doc__)
