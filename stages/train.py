"""Stage `train`: fit AlexNet on train, keep the epoch that is best on val.

    dvc repro train                                    half a minute on the built-in sample, 2 cores
    dvc exp run -S epochs=20 -S lr=0.0005              with other hyperparameters

Reads the train and val arrays; the test set is no dependency. Writes models/model.safetensors,
models/mlflow_run.json, metrics/train.json, metrics/curves.csv, metrics/val_confusion.json,
data/predictions/val.csv and metrics/figures/train/.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import _source  # noqa: F401  before anything of the library
import gender_classifier
from gender_classifier.common.checkout import find_main_root
from gender_classifier.common.figures import confusion_matrix, save_figure
from gender_classifier.common.files import short_digest, write_csv, write_json
from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import keep_freed_memory, share_threads
from gender_classifier.data.dataset import DatasetInfo, PackedSplit, open_split, read_index, read_info
from gender_classifier.data.names import SAMPLE, SAMPLE_NOTE
from gender_classifier.metrics.calibration import fit_temperature
from gender_classifier.metrics.curves import choose_threshold, threshold_points
from gender_classifier.metrics.scores import evaluate
from gender_classifier.metrics.tables import tabulate_confusion, write_predictions
from gender_classifier.model.inference import IMAGENET_MEAN, IMAGENET_STD
from gender_classifier.model.model_file import ModelSpec, save_model
from gender_classifier.model.network import build_model, count_parameters
from gender_classifier.model.weights import load_initial_weights
from gender_classifier.pipeline.params import Params, flatten_params
from gender_classifier.pipeline.stage import run_stage
from gender_classifier.track.run import TrackedRun, now_ms, track
from gender_classifier.train.checkpoints import (
    Checkpoint,
    fingerprint,
    hold_checkpoint,
    load_checkpoint,
    pack_checkpoint,
    save_checkpoint,
    unpack_checkpoint,
)
from gender_classifier.train.distributed import World, broadcast, is_launched, join, launch
from gender_classifier.train.figures import curves
from gender_classifier.train.params import TrainParams
from gender_classifier.train.trainer import Best, EpochRecord, Trainer


def main(layout: Layout, params: Params) -> None:
    """Train, mirror each epoch to MLflow, and write the best epoch's model; in several processes if told so."""
    if params.train.processes > 1 and not is_launched():
        sys.exit(launch(__file__, params.train.processes))
    threads = share_threads(layout.root)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    with join(params.train.device) as world:
        _train(layout, params, world)


def _train(layout: Layout, params: Params, world: World) -> None:
    own, info = params.train, read_info(layout.dataset_path)
    train, val = (open_split(layout.images_path(name), layout.labels_path(name)) for name in ("train", "val"))
    imagenet = own.weights == "imagenet"
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (info.channel_mean, info.channel_std)
    spec = ModelSpec(own.head, info.classes, info.image_size, mean, std, own.tta_margin)
    trainer = _build_trainer(layout, own, spec, train, val, world)
    progress = _Progress(_find_checkpoint(layout, own, trainer, world), trainer, world)
    if world.rank:  # the first process writes, logs and tells; the others work
        progress.resume()
        for _ in trainer.epochs():
            pass
        return
    with hold_checkpoint(progress.path):
        progress.resume()
        flat = flatten_params(layout.params_path)
        with track("train", layout.root, params=flat, resume=progress.run_id, key=progress.path.stem) as run:
            write_json(layout.mlflow_run_path, {"run_id": run.run_id, "experiment": run.experiment})
            run.set_tags({"torch.processes": world.size})
            _describe(run, layout, info, trainer, {"train": len(train.images), "val": len(val.images)})
            _fit(layout, run, progress, own.epochs, len(train.images) + len(val.images))
            best = trainer.best
            assert best is not None
            spec = replace(spec, temperature=fit_temperature(best.val_logits, val.labels))
            save_model(layout.model_path, best.state, spec)
            _report(layout, run, spec, best, progress, val)
    chosen = best.record
    print(
        f"train: best of {len(trainer.records)} epochs is {chosen.epoch}, "
        f"with validation accuracy {chosen.val_accuracy:.4f}"
    )


class _Progress:
    """What a stopped training needs to go on: the trainer's state, and what MLflow was told, and when."""

    def __init__(self, path: Path, trainer: Trainer, world: World) -> None:
        self.path, self.trainer, self.world = path, trainer, world
        self.run_id: str | None = None
        self.log: list[dict[str, Any]] = []

    def resume(self) -> None:
        # The first process's file is what counts: other machines need not have one.
        found = load_checkpoint(self.path) if not self.world.rank else None
        data = broadcast(pack_checkpoint(found) if found else None, self.world, self.trainer.device)
        if data is None:
            return
        checkpoint = unpack_checkpoint(data)
        self.trainer.load_state_dict(checkpoint.tensors, checkpoint.facts)
        self.run_id, self.log = checkpoint.facts["run_id"], checkpoint.facts["log"]
        # The number of threads is part of the result's last digits.
        torch.set_num_threads(checkpoint.facts["threads"])
        if not self.world.rank:
            print(f"train: going on after epoch {len(self.trainer.records)} of a run that was stopped")

    def save(self, run_id: str, metrics: dict[str, float]) -> None:
        self.log.append({"step": len(self.trainer.records), "timestamp": now_ms(), "metrics": metrics})
        tensors, facts = self.trainer.state_dict()
        facts |= {"run_id": run_id, "log": self.log, "threads": torch.get_num_threads()}
        save_checkpoint(self.path, Checkpoint(tensors, facts))


def _build_trainer(
    layout: Layout, own: TrainParams, spec: ModelSpec, train: PackedSplit, val: PackedSplit, world: World
) -> Trainer:
    torch.manual_seed(own.seed)
    model = build_model(spec.head, len(spec.classes), spec.image_size)
    load_initial_weights(model, own.weights, find_main_root(layout.root))
    return Trainer(model, spec, train, val, own, world)


def _describe(run: TrackedRun, layout: Layout, info: DatasetInfo, trainer: Trainer, counts: dict[str, int]) -> None:
    source = str(flatten_params(layout.params_path)["source"])
    run.log_dataset(Path(source).name, info.manifest_sha256, "training", counts)
    run.set_tags(
        {
            "data.digest": short_digest(info.manifest_sha256),
            "model.parameters": count_parameters(trainer.model),
            "torch.device": trainer.device,
            "torch.precision": trainer.precision,
            "torch.threads": torch.get_num_threads(),
            "torch.version": torch.__version__,
            "mlflow.note.content": SAMPLE_NOTE if source == SAMPLE else "",
        }
    )


def _find_checkpoint(layout: Layout, own: TrainParams, trainer: Trainer, world: World) -> Path:
    """Name the checkpoint after everything that decides the result: another name is another training."""
    code = [Path(__file__), *sorted(Path(gender_classifier.__file__).parent.rglob("*.py"))]
    arrays = [find(name) for name in ("train", "val") for find in (layout.images_path, layout.labels_path)]
    facts = asdict(own) | {"device": trainer.device, "precision": trainer.precision, "torch": torch.__version__}
    facts |= {"processes": world.size}
    return layout.checkpoints_dir / f"{fingerprint(facts, [*code, layout.dataset_path, *arrays])}.safetensors"


def _fit(layout: Layout, run: TrackedRun, progress: _Progress, epochs: int, per_epoch: int) -> None:
    """Train to the end; checkpoint, curves on disk and curves in MLflow grow by the epoch, in this order."""
    done = len(progress.log)
    if done:
        run.set_tags({"resumed.after_epoch": done})
    for entry in progress.log:  # the store knows what it has seen by the time it was measured at
        run.log_metrics(**entry)
    with tqdm(
        total=epochs * per_epoch,
        initial=done * per_epoch,
        unit="img",
        unit_scale=True,
        disable=None,
        dynamic_ncols=True,
    ) as bar:
        bar.set_description(f"epoch {min(done + 1, epochs)}/{epochs}")
        started = time.perf_counter()
        for record in progress.trainer.epochs(bar.update):
            speed = {"images_per_second": per_epoch / (time.perf_counter() - started)}
            progress.save(run.run_id, _name_metrics(record) | speed)
            _write_curves(layout, progress.trainer.records)
            run.log_metrics(**progress.log[-1])
            bar.set_description(f"epoch {min(record.epoch + 1, epochs)}/{epochs}")
            bar.set_postfix(val_loss=f"{record.val_loss:.3f}", val_accuracy=f"{record.val_accuracy:.4f}")
            started = time.perf_counter()
    _write_curves(layout, progress.trainer.records)


def _write_curves(layout: Layout, records: list[EpochRecord]) -> None:
    header = [field.name for field in fields(EpochRecord)]
    write_csv(layout.curves_path, header, [list(asdict(record).values()) for record in records])


def _name_metrics(record: EpochRecord) -> dict[str, float]:
    return {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "val/loss": record.val_loss,
        "val/accuracy": record.val_accuracy,
        "lr": record.lr,
    }


def _report(
    layout: Layout, run: TrackedRun, spec: ModelSpec, best: Best, progress: _Progress, val: PackedSplit
) -> None:
    chosen = best.record
    found = evaluate(best.val_logits / spec.temperature, val.labels, classes=spec.classes)
    metrics = {
        "best_epoch": chosen.epoch,
        "best_val_accuracy": chosen.val_accuracy,
        "best_val_loss": chosen.val_loss,
        "temperature": spec.temperature,
        "threshold": choose_threshold(threshold_points(found.probs[:, 1], val.labels)),
    }
    write_json(layout.train_report_path, metrics)
    write_json(layout.val_confusion_path, tabulate_confusion(found.confusion, spec.classes))
    write_predictions(
        layout.val_predictions_path, read_index(layout.index_path("val")), val.labels, found, spec.classes
    )
    figures = layout.figures_dir("train")
    save_figure(curves([asdict(item) for item in progress.trainer.records], chosen.epoch), figures / "curves.png")
    confusion = confusion_matrix(found.confusion, spec.classes, f"Validation set, epoch {chosen.epoch}")
    save_figure(confusion, figures / "val_confusion.png")
    run.log_metrics(metrics, timestamp=progress.log[-1]["timestamp"])
    for path in (layout.curves_path, layout.val_confusion_path):
        run.log_artifact(path, "metrics")
    run.log_artifact(figures)
    run.log_artifact(layout.model_path, "weights")


if __name__ == "__main__":
    run_stage("train", main, __doc__)
