"""Stage `evaluate`: measure the model on the test set, export and register it.

    dvc repro evaluate                                 seconds
    dvc metrics show; dvc plots show

Reads the model and its MLflow run, metrics/train.json, metrics/curves.csv, data/processed/ (all but the groups),
data/predictions/train_folds.csv, data/corrections.csv and the labelled sets in `evaluate.extra`. Writes
metrics/evaluate.json, metrics/test_report.json, metrics/test_attributes.csv, metrics/test_confusion.json,
metrics/roc.csv, metrics/reliability.csv, metrics/thresholds.csv, metrics/robustness.csv, metrics/unfamiliar.csv,
data/predictions/test.csv, data/predictions/label_issues.csv, data/predictions/unfamiliar.csv, models/model.onnx,
models/model_card.md, metrics/figures/evaluate/ and metrics/sheets/evaluate/; for the labelled sets, metrics/extra.json,
metrics/extra_attributes.csv and data/predictions/extra.csv.
"""

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.paths import Layout, find_main_root
from gender_classifier.common.schema import flatten
from gender_classifier.evaluate.export import export_checked
from gender_classifier.evaluate.extra.report import describe_extra, locate_sets, measure_sets
from gender_classifier.evaluate.inputs import load_inputs
from gender_classifier.evaluate.measure import measure
from gender_classifier.evaluate.measured import list_measured
from gender_classifier.evaluate.report import describe_evaluation, log_evaluation, tell
from gender_classifier.pipeline.params import Params, flatten_params
from gender_classifier.pipeline.publish import publish
from gender_classifier.pipeline.stage import point_to, run_stage
from gender_classifier.track.registration import register_run
from gender_classifier.track.run import track
from gender_classifier.train.checkpoints import discard_checkpoints


def main(layout: Layout, params: Params) -> None:
    """Write the report, log it to the run that trained the model, and register the model."""
    settings, source = params.evaluate, params.ingest.source
    made_with = dict(flatten({"preprocess": params.preprocess, "train": params.train}))
    inputs = load_inputs(layout, source, made_with)
    sets = locate_sets(settings.extra, find_main_root(layout.root), inputs.spec.classes)
    with track("evaluate", layout.root, params=flatten_params(params), resume=inputs.run_id) as run:
        evaluation = measure(inputs, settings)
        scored = measure_sets(inputs, sets, settings.ece_bins, params.verify.max_pixels)
        measured = list_measured(evaluation, scored, inputs.spec.classes)
        publish(layout.root, describe_evaluation(inputs, evaluation, scored, measured, settings), run)
        publish(layout.root, describe_extra(scored, settings.extra, inputs.spec.classes), run)
        difference = export_checked(layout.onnx_path, inputs, evaluation, measured, params.verify.min_side)
        log_evaluation(run, inputs, evaluation, scored)
        registered = register_run(run, layout, inputs, evaluation, scored, settings.promotion)
    discard_checkpoints(layout.checkpoints_dir, inputs.run_id)
    print(*tell(evaluation, difference, registered), sep="\n")
    point_to("evaluate", run.place, "models/model_card.md", "metrics/figures/evaluate/")


if __name__ == "__main__":
    run_stage("evaluate", main, __doc__)
