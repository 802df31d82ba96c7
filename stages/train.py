"""Stage `train`: fit the network on train and keep the best epoch on val.

    dvc repro train                                    30 s on the built-in sample, 2 cores
    dvc exp run -S epochs=20 -S lr=0.001               with other hyperparameters

Reads arrays and indexes of train and val, and the groups of train. Writes models/{model.safetensors,mlflow_run.json},
metrics/{train,val_confusion}.json, metrics/{curves.csv,figures/train/}, data/predictions/{val,train_folds}.csv.
"""

import sys

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.paths import Layout, find_main_root
from gender_classifier.common.processes import keep_freed_memory, share_threads
from gender_classifier.pipeline.params import Params, flatten_params
from gender_classifier.pipeline.publish import publish
from gender_classifier.pipeline.stage import point_to, run_stage
from gender_classifier.pipeline.watched import find_watched
from gender_classifier.track.run import track
from gender_classifier.train import report
from gender_classifier.train.distributed import is_launched, join, launch
from gender_classifier.train.folds import open_folds
from gender_classifier.train.session import open_session


def main(layout: Layout, params: Params) -> None:
    """Train, log each epoch to MLflow, and write the best epoch's model; in several processes if configured."""
    if params.train.processes > 1 and not is_launched():
        sys.exit(launch(__file__, params.train.processes))
    keep_freed_memory()
    with join(params.train.device) as world:
        code, threads, source = find_watched("train"), share_threads(layout.root), params.ingest.source
        session = open_session(layout, params.train, code, find_main_root(layout.root), world, threads)
        folds = open_folds(layout, session)
        if world.rank:  # only the first process writes, logs and prints
            folds.follow()
            return
        with (
            session.hold(),
            track(
                "train", layout.root, params=flatten_params(params), tags=report.tag_run(session, source),
                resume=session.run_id, key=session.key,
            ) as run,
        ):  # fmt: skip
            print(f"train: {report.describe_start(session, source)}", flush=True)
            publish(layout.root, report.describe_run(run))
            report.log_inputs(run, session, source)
            session.fit(run)
            summary = report.summarize(session)
            publish(layout.root, report.describe_training(session, summary, folds.predict(run.run_id)), run)
            report.log_summary(run, session, summary)
        print(summary.line)
        point_to("train", run.place, "metrics/curves.csv", "metrics/figures/train/")


if __name__ == "__main__":
    run_stage("train", main, __doc__)
