"""What a finished training leaves: the model, its figures on val, its curves."""

import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gender_classifier.common.artifacts import Artifact, Run, Table, tabulate
from gender_classifier.common.figures import confusion_matrix
from gender_classifier.common.files import short_digest
from gender_classifier.common.progress import show_progress
from gender_classifier.data.dataset import PackedSplit, tag_corrections
from gender_classifier.data.file_names import describe_value
from gender_classifier.data.names import SAMPLE, SAMPLE_NOTE
from gender_classifier.metrics.arrays import Ints
from gender_classifier.metrics.calibration import fit_temperature
from gender_classifier.metrics.curves import choose_threshold, pick_positive, threshold_points
from gender_classifier.metrics.robust_bias import GROUPS, MOST_IMAGES, fit_robust_bias, is_enough
from gender_classifier.metrics.scores import Report, compare_with_constant, evaluate
from gender_classifier.metrics.tables import prediction_columns, tabulate_confusion, tabulate_predictions
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import ModelSpec, build_network, describe_network, pack_model
from gender_classifier.model.network import count_parameters
from gender_classifier.model.unfamiliarity import Unfamiliarity, fit_unfamiliarity
from gender_classifier.train.figures import curves
from gender_classifier.train.folds import HeldOut
from gender_classifier.train.params import TrainParams
from gender_classifier.train.session import Session
from gender_classifier.train.trainer import Best, EpochRecord

_CRITERIA = {"val_loss": "validation loss", "val_accuracy": "validation accuracy"}


@dataclass(frozen=True)
class Summary:
    """The kept epoch: its ``best`` state, the calibrated ``spec``, its ``report`` on val and its headline metrics.

    ``unfamiliarity`` is fitted to the features that the kept weights give the images of train and val.
    ``line`` is what the stage prints: one line, or two where the model has not learned to tell the classes apart.
    """

    best: Best
    spec: ModelSpec
    report: Report
    metrics: dict[str, float]
    line: str
    unfamiliarity: Unfamiliarity


def describe_run(run: Run) -> Iterator[Artifact]:
    """Yield the file that names the MLflow run, with which ``evaluate`` goes on."""
    yield Artifact("models/mlflow_run.json", {"run_id": run.run_id, "experiment": run.experiment})


def describe_start(session: Session, source: str) -> str:
    """Return in a sentence what is about to be trained, and on what.

    Args:
        session: about to train.
        source: of the data set, as in ``params.yaml``.
    """
    trainer, params = session.trainer, session.trainer.params
    start = "from scratch" if params.weights == "none" else f"from the weights {describe_value(params.weights)}"
    return (
        f"{describe_network(trainer.spec)} {start}, up to {params.epochs} epochs on {trainer.num_train:,} images "
        f"of {describe_value(source)}, {len(session.val.images):,} to validate."
    )


def tag_run(session: Session, source: str) -> dict[str, object]:
    """Return what people look for in a run: its data, its network, what it runs on, and all that in two sentences.

    Args:
        session: about to train.
        source: of the data set, as in ``params.yaml``.
    """
    trainer, about = session.trainer, describe_start(session, source)
    return {
        "data.digest": short_digest(session.info.manifest_sha256),
        **tag_corrections(session.info.corrections),
        "model.network": describe_network(trainer.spec),
        "model.parameters": count_parameters(trainer.model),
        "torch.device": trainer.device,
        "torch.hardware": _name_hardware(trainer.device),
        "torch.precision": trainer.precision,
        "torch.processes": trainer.num_processes,
        "torch.threads": torch.get_num_threads(),
        "torch.version": torch.__version__,
        "mlflow.note.content": f"{about}\n\n{SAMPLE_NOTE}" if source == SAMPLE else about,
    }


def log_inputs(run: Run, session: Session, source: str) -> None:
    """Link the run to the data set, called by its ``source`` in ``params.yaml``."""
    counts = {"train": session.trainer.num_train, "val": len(session.val.images)}
    run.log_dataset(describe_value(source), session.info.manifest_sha256, "training", counts)


def summarize(session: Session) -> Summary:
    """Calibrate the kept epoch on val, measure it there, and fit what tells unfamiliar images."""
    best = session.trainer.best
    assert best is not None
    labels, record = session.val.labels, best.record
    model = _rebuild_model(session, best)
    spec = calibrate(model, session.trainer.spec, session.val, best.val_logits, session.trainer.params)
    logits = best.val_logits
    if spec.bias:
        with show_progress(total=len(labels), name="val") as bar:
            logits = compute_logits(model, spec, session.val.images, on_batch=bar.update)
    report = evaluate(logits / spec.temperature, labels, classes=spec.classes)
    metrics = {
        "kept_epoch": record.epoch,
        "kept_accuracy": record.val_accuracy,
        "kept_loss": record.val_loss,
        "temperature": spec.temperature,
        **{f"bias_{name}": value for name, value in zip(spec.classes, spec.bias, strict=False)},
    }
    if len(spec.classes) == 2:
        metrics["decision_threshold"] = choose_threshold(threshold_points(*pick_positive(report.probs, labels)))
    line = (
        f"train: best of {len(session.trainer.records)} epochs is {record.epoch} by "
        f"{_CRITERIA[session.trainer.params.best_by]}, with validation accuracy {record.val_accuracy:.4f}"
    )
    steps = len(session.trainer.records) * math.ceil(session.trainer.num_train / session.trainer.params.batch_size)
    line += warn_of_chance(report.confusion, spec.classes, steps)
    # Here, not in `evaluate`: the images of train are at hand, and the model file stays all that it needs.
    unfamiliarity = fit_unfamiliarity(model, spec, session.train.images, session.val.images)
    return Summary(best, spec, report, metrics, line, unfamiliarity)


def calibrate(
    model: nn.Module, spec: ModelSpec, val: PackedSplit, logits: NDArray[np.float32], params: TrainParams
) -> ModelSpec:
    """Return ``spec`` with the temperature and the bias that suit val.

    Args:
        model: of the weights that are kept.
        spec: its description.
        val: the split.
        logits: of val, float32 (N, C).
        params: whether to fit a bias.
    """
    spec = replace(spec, temperature=fit_temperature(logits, val.labels))
    if not (params.robust_bias and is_enough(val.labels, len(spec.classes))):
        return spec
    with show_progress(total=len(GROUPS) * min(len(val.images), MOST_IMAGES), name="robust bias") as bar:
        bias = fit_robust_bias(
            lambda pixels: compute_logits(model, spec, pixels, on_batch=bar.update),
            val.images,
            val.labels,
            logits,
            temperature=spec.temperature,
        )
    return replace(spec, bias=bias)


def _rebuild_model(session: Session, best: Best) -> nn.Module:
    model = build_network(session.trainer.spec)
    model.load_state_dict(best.state)
    model.to(session.trainer.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def warn_of_chance(confusion: Ints, classes: Sequence[str], steps: int) -> str:
    """Return a second line if val shows nothing learned in ``steps`` steps, otherwise an empty string."""
    if len(called := np.flatnonzero(confusion.any(axis=0))) == 1:
        return (
            f"\ntrain: every validation image is called {classes[called[0]]}: the recipe needs more steps than these "
            f"{steps:,}; raise epochs, lower batch_size or add images (and if it stays so, lower lr)"
        )
    if problem := compare_with_constant(confusion, classes):
        return (
            f"\ntrain: {problem}: train longer than {steps:,} steps (raise epochs or lower batch_size) or add images; "
            "until then, do not trust the suspected wrong labels"
        )
    return ""


def log_summary(run: Run, session: Session, summary: Summary) -> None:
    """Log the kept epoch's figures as ``val/...``, and how long the epochs took, those before a stop included."""
    kept = {f"val/{key}": value for key, value in summary.metrics.items()}
    run.log_metrics(kept, timestamp=session.log[-1]["timestamp"])
    images = session.trainer.num_train + len(session.val.images)
    seconds = sum(images / entry["metrics"]["train/images_per_second"] for entry in session.log)
    run.set_tags({"train.time": f"{seconds // 60:.0f} min {seconds % 60:.0f} s"})


def describe_training(session: Session, summary: Summary, held_out: HeldOut | None) -> Iterator[Artifact]:
    """Yield the model file, metrics, curves, predictions and figures."""
    classes, report, epoch = summary.spec.classes, summary.report, summary.best.record.epoch
    records = session.trainer.records
    model = pack_model(summary.best.state, summary.spec, summary.unfamiliarity.state_dict())
    yield Artifact("models/model.safetensors", model, "weights")
    yield Artifact("metrics/train.json", {"val": summary.metrics})
    yield Artifact("metrics/curves.csv", tabulate(EpochRecord, records), "metrics")
    yield Artifact("metrics/val_confusion.json", tabulate_confusion(report.confusion, classes), "metrics")
    predictions = tabulate_predictions(session.members, session.val.labels, report, classes)
    yield Artifact("data/predictions/val.csv", predictions)
    yield Artifact("data/predictions/train_folds.csv", _tabulate_held_out(session, held_out))
    figures = {
        "curves": curves([asdict(record) for record in records], epoch),
        "val_confusion": confusion_matrix(report.confusion, classes, f"Validation set, epoch {epoch}", report.interval),
    }
    for name, figure in figures.items():
        yield Artifact(f"metrics/figures/train/{name}.png", figure, "")


def _tabulate_held_out(session: Session, held_out: HeldOut | None) -> Table:
    """Return the table of val's predictions for train, with the fold that each comes from; without rows for None."""
    labels, classes = session.train.labels, session.info.classes
    if held_out is None:
        return Table(["member", *prediction_columns(classes), "fold"], [])
    table = tabulate_predictions(held_out.members, labels, evaluate(held_out.logits, labels, classes=classes), classes)
    rows = ([*row, fold] for row, fold in zip(table.rows, held_out.folds, strict=True))
    return Table([*table.header, "fold"], rows)


def _name_hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
