"""Predictions for the training images by models that did not train on them, to find wrong labels among them.

A model defends the labels that it has learned. Confident learning (Northcutt et al., "Confident Learning: Estimating
Uncertainty in Dataset Labels", 2021) therefore judges labels by cross-validation: the images are divided into folds,
and a model trained on the others predicts each fold.
"""

import heapq
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gender_classifier.common.paths import Layout
from gender_classifier.common.progress import show_progress
from gender_classifier.data.dataset import open_groups, read_index
from gender_classifier.errors import ParamsError
from gender_classifier.metrics.arrays import Floats, Ints
from gender_classifier.metrics.calibration import fit_temperature
from gender_classifier.model.inference import compute_logits
from gender_classifier.train.checkpoints import Checkpoint, fingerprint, save_checkpoint
from gender_classifier.train.distributed import gather_rows
from gender_classifier.train.session import Session, find_checkpoint, start_trainer
from gender_classifier.train.trainer import Trainer

_logger = logging.getLogger(__name__)

_BLOCK = 8192  # images held in memory at a time to predict them: 96 MiB of images of 64 px


@dataclass(frozen=True)
class HeldOut:
    """The name of each training image, the fold that held it out, int64 (N,) from 1, and its logits, float64 (N, C).

    The logits are calibrated: divided by the temperature that suits that fold's model on val. They have no bias.
    """

    members: list[str]
    folds: Ints
    logits: Floats


class Folds:
    """The trainings of ``train.label_folds``, by the recipe of the session, each without one fold of train.

    They are resumed like the session's own training, and a finished one is kept as its predictions alone.
    """

    def __init__(self, session: Session, members: list[str], folds: Ints) -> None:
        """Prepare; ``folds`` is int64 (N,): the fold of each of ``members``, from 1. Without members there are none."""
        self._session, self._members, self._folds = session, members, folds
        self._count = int(folds.max(initial=0))

    def follow(self) -> None:
        """Train the session and the folds as one of several processes that is not the first."""
        self._session.follow()
        self.predict("")

    def predict(self, run_id: str) -> HeldOut | None:
        """Train once per fold, and predict the images that it leaves out; None if there are no folds.

        Args:
            run_id: MLflow run that the checkpoints belong to.
        """
        session = self._session
        if not self._count:
            return None
        logits = np.empty((len(self._folds), len(session.info.classes)))
        checkpoints = [self._find(fold) for fold in range(1, self._count + 1)]
        with self._show_progress(checkpoints) as (advance, tell):
            for fold in range(1, self._count + 1):
                tell(f"fold {fold}/{self._count}")
                found = checkpoints.pop(0)  # as large as the optimizer: not kept beyond its fold
                logits[self._folds == fold] = self._predict_fold(fold, found, run_id, advance)
        agree = float((logits.argmax(axis=1) == session.train.labels).mean())
        if not session.world.rank:
            _logger.info("of the training labels, models that did not see them confirm %.2f %%", 100 * agree)
        return HeldOut(self._members, self._folds, logits)

    def _predict_fold(
        self, fold: int, found: Checkpoint | None, run_id: str, advance: Callable[[int], object]
    ) -> Floats:
        session, path = self._session, self._locate(fold)
        if found is not None and "held_out" in found.tensors:
            logits: Floats = found.tensors["held_out"].numpy()
            return logits
        trainer = start_trainer(session, np.flatnonzero(self._folds != fold))
        if found is not None:
            trainer.load_state_dict(found.tensors, found.facts)
            torch.set_num_threads(found.facts["threads"])
        facts = {"run_id": run_id, "threads": torch.get_num_threads()}
        for _ in trainer.epochs(advance):
            tensors, progress = trainer.state_dict()
            self._save(path, Checkpoint(tensors, progress | facts))
        logits = _predict(trainer, session, np.flatnonzero(self._folds == fold), advance)
        self._save(path, Checkpoint({"held_out": torch.from_numpy(logits)}, facts))
        return logits

    def _find(self, fold: int) -> Checkpoint | None:
        return find_checkpoint(self._locate(fold), self._session.world, self._session.trainer.device)

    def _locate(self, fold: int) -> Path:
        """Return the path of the fold's checkpoint, named after everything that affects its result."""
        rows = sha256(np.flatnonzero(self._folds == fold).tobytes()).hexdigest()
        key = fingerprint({"training": self._session.key, "without": rows}, ())
        return self._session.path.with_name(f"{key}.safetensors")

    def _save(self, path: Path, checkpoint: Checkpoint) -> None:
        if not self._session.world.rank:
            save_checkpoint(path, checkpoint)

    def _count_images(self, fold: int, found: Checkpoint | None) -> tuple[int, int]:
        """Return how many images pass through the network for a fold, and how many did before its checkpoint."""
        held_out = int((self._folds == fold).sum())
        per_epoch = len(self._folds) - held_out + len(self._session.val.labels)
        total = self._session.trainer.params.epochs * per_epoch + held_out
        if found is None:
            return total, 0
        return total, total if "held_out" in found.tensors else len(found.facts["records"]) * per_epoch

    @contextmanager
    def _show_progress(
        self, checkpoints: Sequence[Checkpoint | None]
    ) -> Iterator[tuple[Callable[[int], object], Callable[[str], object]]]:
        """Give what a progress bar is told: numbers of images, and what is at work."""
        if self._session.world.rank:
            yield (lambda _: None), (lambda _: None)
            return
        counts = [self._count_images(fold, found) for fold, found in enumerate(checkpoints, start=1)]
        total, done = map(sum, zip(*counts, strict=True))
        minutes = (total - done) * self._session.measure_seconds_per_image() / 60
        left = sum(passed < images for images, passed in counts)
        _logger.info(
            "label folds: %d of %d trainings left, about %.0f min", left, self._count, max(minutes, left and 1)
        )
        with show_progress(total=total, initial=done, name="folds", unit_scale=True) as bar:
            yield bar.update, bar.set_description


def open_folds(layout: Layout, session: Session) -> Folds:
    """Divide train into ``train.label_folds`` folds, and say what they cost.

    Raises:
        ParamsError: train has too few groups for that many folds.
    """
    params, count = session.trainer.params, session.trainer.params.label_folds
    if not count:
        return Folds(session, [], np.empty(0, np.int64))
    labels, groups = session.train.labels, open_groups(layout.groups_path, len(session.train.labels))
    folds = assign_folds(labels, groups, count, params.seed)
    _check_folds(folds, labels, session.info.classes, count)
    if not session.world.rank:
        _logger.info(
            "`train.label_folds` is %d: this training, then %d more on %.0f %% of its images each, %.1f times as long",
            count,
            count,
            100 - 100 / count,
            count - 1,
        )
    return Folds(session, read_index(layout.index_path("train")), folds)


def assign_folds(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int, seed: int) -> Ints:
    """Divide images into folds of equal size with equal shares of each label; groups stay whole.

    Groups are placed one by one, large ones first and otherwise in random order, each into the fold that has the fewest
    images of its label, then the fewest images.

    Args:
        labels: int64 (N,).
        groups: int64 (N,): equal numbers for images that belong on one side.
        count: folds.
        seed: of the order.

    Returns:
        int64 (N,): folds, from 1 to ``count``.
    """
    _, first, group_of_row, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of_group = np.empty(len(sizes), np.int64)
    totals = [0] * (count + 1)
    for label in np.unique(labels):
        # A group with two labels counts for the label of its first image.
        fullness = [(0, totals[fold], fold) for fold in range(1, count + 1)]
        heapq.heapify(fullness)
        for group in order[labels[first[order]] == label]:
            held, total, fold = fullness[0]
            fold_of_group[group] = fold
            totals[fold] += int(sizes[group])
            heapq.heapreplace(fullness, (held + int(sizes[group]), total + int(sizes[group]), fold))
    folds: Ints = fold_of_group[group_of_row]
    return folds


def _check_folds(folds: Ints, labels: NDArray[np.int64], classes: tuple[str, ...], count: int) -> None:
    advice = "lower it or set it to 0; a group is all images of one person and their near-copies"
    for fold in range(1, count + 1):
        if not (folds == fold).any():
            raise ParamsError(f"params.yaml: `train.label_folds` is {count}, more than train has groups; {advice}")
        kept = np.bincount(labels[folds != fold], minlength=len(classes))
        if not kept.all():
            name = classes[int(kept.argmin())]
            raise ParamsError(
                f"params.yaml: `train.label_folds` is {count}, and without fold {fold} train has no image of {name}; "
                f"{advice}"
            )


def _predict(trainer: Trainer, session: Session, rows: Ints, advance: Callable[[int], object]) -> Floats:
    """Return the calibrated logits of some training images by the kept epoch, float64 (n, C), on every process."""
    assert trainer.best is not None
    model, spec, world = trainer.averaged, trainer.spec, session.world
    model.load_state_dict(trainer.best.state)
    share = rows[world.share(len(rows))]
    blocks = [share[start : start + _BLOCK] for start in range(0, max(len(share), 1), _BLOCK)]
    parts = [compute_logits(model, spec, session.train.images[block], on_batch=advance) for block in blocks]
    advance(len(rows) - len(share))  # what other processes did
    logits = gather_rows(np.concatenate(parts), len(rows), world, trainer.device)
    return logits.astype(np.float64) / fit_temperature(trainer.best.val_logits, session.val.labels)
