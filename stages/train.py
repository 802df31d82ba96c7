"""Stage `train`: fit AlexNet on train, keep the epoch that is best on val.

    dvc repro train                                    half a minute on the built-in sample, 2 cores
    dvc exp run -S epochs=20 -S lr=0.0005              with other hyperparameters

Reads the train and val arrays; the test set is no dependency. Writes models/model.safetensors,
models/mlflow_run.json, metrics/train.json, metrics/curves.csv, metrics/val_confusion.json,
data/predictions/val.csv and metrics/figures/train/.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from gender_classifier import plots
from gender_classifier.dataset import DatasetInfo, PackedSplit, open_split, read_index, read_info
from gender_classifier.evaluation import evaluate
from gender_classifier.files import write_csv, write_json
from gender_classifier.layout import SAMPLE, SAMPLE_NOTE, Layout, find_main_root
from gender_classifier.model import ModelSpec, build_model, count_parameters, load_initial_weights, save_model
from gender_classifier.params import Params, TrainParams, flatten_params
from gender_classifier.predictions import tabulate_confusion, write_predictions
from gender_classifier.stage import run_stage
from gender_classifier.tracking import TrackedRun, short_digest, track
from gender_classifier.training import Best, EpochRecord, Trainer


def main(layout: Layout, params: Params) -> None:
    """Train, mirror each epoch to MLflow, and write the best epoch's model."""
    info = read_info(layout.dataset_path)
    train, val = (open_split(layout.images_path(name), layout.labels_path(name)) for name in ("train", "val"))
    spec = ModelSpec(params.train.head, info.classes, info.image_size, info.channel_mean, info.channel_std)
    trainer = _build_trainer(layout, params.train, spec, train, val)
    with track("train", layout.root) as run:
        write_json(layout.mlflow_run_path, {"run_id": run.run_id, "experiment": run.experiment})
        _describe(run, layout, info, trainer, {"train": len(train.images), "val": len(val.images)})
        records = _fit(layout, run, trainer, params.train, len(train.images) + len(val.images))
        best = trainer.best
        assert best is not None
        save_model(layout.model_path, best.state, spec)
        _report(layout, run, spec, best, records, val)
    chosen = best.record
    print(f"train: best of {len(records)} epochs is {chosen.epoch}, with validation accuracy {chosen.val_accuracy:.4f}")


def _build_trainer(layout: Layout, own: TrainParams, spec: ModelSpec, train: PackedSplit, val: PackedSplit) -> Trainer:
    torch.manual_seed(own.seed)
    model = build_model(spec.head, len(spec.classes), spec.image_size)
    load_initial_weights(model, own.weights, find_main_root(layout.root))
    return Trainer(model, spec, train, val, own)


def _describe(run: TrackedRun, layout: Layout, info: DatasetInfo, trainer: Trainer, counts: dict[str, int]) -> None:
    flat = flatten_params(layout.params_path)
    run.log_params(flat)
    run.log_dataset(Path(str(flat["source"])).name, info.manifest_sha256, "training", counts)
    run.set_tags(
        {
            "data.digest": short_digest(info.manifest_sha256),
            "model.parameters": count_parameters(trainer.model),
            "torch.device": trainer.device,
            "torch.precision": trainer.precision,
            "torch.threads": torch.get_num_threads(),
            "torch.version": torch.__version__,
            "mlflow.note.content": SAMPLE_NOTE if flat["source"] == SAMPLE else "",
        }
    )


def _fit(layout: Layout, run: TrackedRun, trainer: Trainer, own: TrainParams, per_epoch: int) -> list[EpochRecord]:
    """Train to the end; curves grow on disk and in MLflow."""
    records: list[EpochRecord] = []
    with tqdm(total=own.epochs * per_epoch, unit="img", unit_scale=True, disable=None, dynamic_ncols=True) as bar:
        bar.set_description(f"epoch 1/{own.epochs}")
        started = time.perf_counter()
        for record in trainer.epochs(bar.update):
            records.append(record)
            write_csv(layout.curves_path, list(asdict(record)), [list(asdict(item).values()) for item in records])
            elapsed = time.perf_counter() - started
            run.log_metrics(_name_metrics(record) | {"images_per_second": per_epoch / elapsed}, step=record.epoch)
            bar.set_description(f"epoch {min(record.epoch + 1, own.epochs)}/{own.epochs}")
            bar.set_postfix(val_loss=f"{record.val_loss:.3f}", val_accuracy=f"{record.val_accuracy:.4f}")
            started = time.perf_counter()
    return records


def _name_metrics(record: EpochRecord) -> dict[str, float]:
    return {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "val/loss": record.val_loss,
        "val/accuracy": record.val_accuracy,
        "lr": record.lr,
    }


def _report(
    layout: Layout, run: TrackedRun, spec: ModelSpec, best: Best, records: list[EpochRecord], val: PackedSplit
) -> None:
    chosen = best.record
    metrics = {
        "best_epoch": chosen.epoch,
        "best_val_accuracy": chosen.val_accuracy,
        "best_val_loss": chosen.val_loss,
        "best_train_accuracy": chosen.train_accuracy,
        "best_train_loss": chosen.train_loss,
    }
    write_json(layout.train_report_path, metrics)
    found = evaluate(best.val_logits, val.labels, classes=spec.classes)
    write_json(layout.val_confusion_path, tabulate_confusion(found.confusion, spec.classes))
    write_predictions(
        layout.val_predictions_path, read_index(layout.index_path("val")), val.labels, found, spec.classes
    )
    figures = layout.figures_dir("train")
    plots.save_figure(plots.curves([asdict(item) for item in records], chosen.epoch), figures / "curves.png")
    confusion = plots.confusion_matrix(found.confusion, spec.classes, f"Validation set, epoch {chosen.epoch}")
    plots.save_figure(confusion, figures / "val_confusion.png")
    run.log_metrics(metrics)
    for path in (layout.curves_path, layout.val_confusion_path):
        run.log_artifact(path, "metrics")
    run.log_artifact(figures)
    run.log_artifact(layout.model_path, "weights")


if __name__ == "__main__":
    run_stage("train", main, __doc__)
