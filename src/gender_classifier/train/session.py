"""A training that can be stopped at any moment: it goes on from its last finished epoch and ends in the same bits."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gender_classifier.common.artifacts import Run, tabulate
from gender_classifier.common.files import write_csv
from gender_classifier.common.paths import Layout
from gender_classifier.common.progress import show_progress
from gender_classifier.data.dataset import DatasetInfo, PackedSplit, open_split, read_index, read_info
from gender_classifier.errors import ModelError
from gender_classifier.model.model_file import ModelSpec, build_network
from gender_classifier.model.network import check_choice, try_out
from gender_classifier.model.serving import can_export
from gender_classifier.model.weights import InitialWeights, apply_weights, load_weights
from gender_classifier.train.checkpoints import (
    Checkpoint,
    fingerprint,
    hold_checkpoint,
    load_checkpoint,
    pack_checkpoint,
    save_checkpoint,
    unpack_checkpoint,
)
from gender_classifier.train.distributed import World, broadcast
from gender_classifier.train.params import TrainParams
from gender_classifier.train.trainer import EpochRecord, Trainer

_logger = logging.getLogger(__name__)

_EXPORTABLE = ("alexnet", "resnet10")
"""Networks that are known to run on images of any allowed size, and to be exported with test-time augmentation."""


class Session:
    """A trainer, its data, its checkpoint, and the log of what MLflow was told and when."""

    def __init__(
        self,
        layout: Layout,
        info: DatasetInfo,
        train: PackedSplit,
        val: PackedSplit,
        initial: InitialWeights,
        trainer: Trainer,
        world: World,
        path: Path,
    ) -> None:
        """Prepare to train; ``path`` is the checkpoint's, named after everything that affects the result."""
        self.info, self.train, self.val, self.initial = info, train, val, initial
        self.trainer, self.world, self.path = trainer, world, path
        self.members = read_index(layout.index_path("val"))
        self.run_id: str | None = None
        self.log: list[dict[str, Any]] = []
        self._curves_path = layout.curves_path

    @property
    def key(self) -> str:
        """Return the hash of everything that affects the result."""
        return self.path.stem

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the checkpoint against other processes, and load it if there is one."""
        with hold_checkpoint(self.path):
            self._resume()
            yield

    def follow(self) -> None:
        """Train as one of several processes that is not the first."""
        self._resume()
        for _ in self.trainer.epochs():
            pass

    def fit(self, run: Run) -> None:
        """Train to the end; after each epoch the checkpoint, the curves on disk and those in MLflow grow."""
        done, epochs = len(self.log), self.trainer.params.epochs
        if done:
            run.set_tags({"resumed.after_epoch": done})
        for entry in self.log:  # a point with the same value, step and time is stored once
            run.log_metrics(**entry)
        per_epoch = self.trainer.num_train + len(self.val.images)
        with show_progress(
            total=epochs * per_epoch, initial=done * per_epoch, name=_name_epoch(done + 1, epochs), unit_scale=True
        ) as bar:
            started = time.perf_counter()
            for record in self.trainer.epochs(bar.update):
                speed = {"train/images_per_second": per_epoch / (time.perf_counter() - started)}
                self._save(run.run_id, _name_metrics(record) | speed)
                self._write_curves()
                run.log_metrics(**self.log[-1])
                bar.set_description(_name_epoch(record.epoch + 1, epochs))
                bar.set_postfix(val_loss=f"{record.val_loss:.3f}", val_accuracy=f"{record.val_accuracy:.4f}")
                started = time.perf_counter()
        self._write_curves()

    def measure_seconds_per_image(self) -> float:
        """Return how long an image took, of training and validation alike, in the epochs so far; 0 before the first."""
        speeds: list[float] = [entry["metrics"]["train/images_per_second"] for entry in self.log]
        return sum(1 / speed for speed in speeds) / max(len(speeds), 1)

    def _resume(self) -> None:
        checkpoint = find_checkpoint(self.path, self.world, self.trainer.device)
        if checkpoint is None:
            return
        self.trainer.load_state_dict(checkpoint.tensors, checkpoint.facts)
        self.run_id, self.log = checkpoint.facts["run_id"], checkpoint.facts["log"]
        # The number of threads affects the last digits of the result.
        torch.set_num_threads(checkpoint.facts["threads"])
        if not self.world.rank:
            _logger.info("going on after epoch %d of a run that was stopped", len(self.trainer.records))

    def _save(self, run_id: str, metrics: dict[str, float]) -> None:
        entry = {"step": len(self.trainer.records), "timestamp": int(time.time() * 1000), "metrics": metrics}
        self.log.append(entry)
        tensors, facts = self.trainer.state_dict()
        facts |= {"run_id": run_id, "log": self.log, "threads": torch.get_num_threads()}
        save_checkpoint(self.path, Checkpoint(tensors, facts))

    def _write_curves(self) -> None:
        table = tabulate(EpochRecord, self.trainer.records)
        write_csv(self._curves_path, table.header, table.rows)


def find_checkpoint(path: Path, world: World, device: torch.device) -> Checkpoint | None:
    """Return on every process the checkpoint that the first one has at ``path``: other machines need not have one."""
    found = load_checkpoint(path) if not world.rank else None
    data = broadcast(pack_checkpoint(found) if found else None, world, device)
    return None if data is None else unpack_checkpoint(data)


def open_session(
    layout: Layout, params: TrainParams, code: Iterable[Path], base_dir: Path, world: World, threads: int | None
) -> Session:
    """Build the network and the trainer, and name the checkpoint after everything that affects the result.

    Args:
        layout: where the arrays and the checkpoints are.
        params: of the training.
        code: the files whose content is part of the checkpoint's name.
        base_dir: what a relative ``train.weights`` is relative to.
        world: the processes that train together.
        threads: of PyTorch; None leaves its own choice.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    info = read_info(layout.dataset_path)
    train, val = (open_split(layout.images_path(name), layout.labels_path(name)) for name in ("train", "val"))
    initial = load_weights(params.weights, base_dir, params.network)
    model, spec = build_initial(params, info, initial)
    if spec.tta_margin < params.tta_margin and not world.rank:
        _logger.warning("%s cannot be exported with test-time augmentation: trained and used without", params.network)
    trainer = Trainer(model, spec, train, val, params, world)
    arrays = [find(name) for name in ("train", "val") for find in (layout.images_path, layout.labels_path)]
    facts = asdict(params) | {"device": trainer.device, "precision": trainer.precision, "torch": torch.__version__}
    del facts["label_folds"]  # the folds are trained afterwards, from checkpoints of their own
    facts |= {"processes": world.size, "weights": initial.digest}
    key = fingerprint(facts, [*code, layout.dataset_path, *arrays])
    path = layout.checkpoints_dir / f"{key}.safetensors"
    return Session(layout, info, train, val, initial, trainer, world, path)


def start_trainer(session: Session, rows: NDArray[np.int64]) -> Trainer:
    """Build a trainer as the session's was, with the same initial weights, for some ``rows`` of train."""
    spec, params = session.trainer.spec, session.trainer.params
    model = _initialize(spec, params.seed, session.initial)
    return Trainer(model, spec, session.train, session.val, params, session.world, rows)


def build_initial(params: TrainParams, info: DatasetInfo, initial: InitialWeights) -> tuple[nn.Module, ModelSpec]:
    """Build the network that training starts from, with its description.

    Args:
        params: of the training; ``seed`` alone decides the weights that ``initial`` does not give.
        info: classes, image size and channel statistics of the data set.
        initial: from ``load_weights``.

    Raises:
        ModelError: the network cannot take these images or be exported, or the weights do not fit.
    """
    check_choice(params.network, head=params.head, stem=params.stem, image_size=info.image_size, weights=params.weights)
    mean, std = initial.normalization or (info.channel_mean, info.channel_std)
    spec = ModelSpec(
        params.head,
        info.classes,
        info.image_size,
        mean,
        std,
        params.tta_margin,
        architecture=params.network,
        stem=params.stem,
    )
    model = _initialize(spec, params.seed, initial)
    if params.network not in _EXPORTABLE:
        try_out(model, params.network, info.image_size)
        if spec.tta_margin and not can_export(model, spec):
            spec = replace(spec, tta_margin=0.0)
        if not spec.tta_margin and not can_export(model, spec):
            raise ModelError(f"{params.network} cannot be exported to ONNX; choose another `train.network`")
    return model, spec


def _initialize(spec: ModelSpec, seed: int, initial: InitialWeights) -> nn.Module:
    torch.manual_seed(seed)
    model = build_network(spec)
    apply_weights(model, initial, spec)
    return model


def _name_epoch(epoch: int, epochs: int) -> str:
    return f"epoch {min(epoch, epochs)}/{epochs}"


def _name_metrics(record: EpochRecord) -> dict[str, float]:
    return {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "val/loss": record.val_loss,
        "val/accuracy": record.val_accuracy,
        "train/lr": record.lr,
    }
