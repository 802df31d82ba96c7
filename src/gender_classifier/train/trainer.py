"""The training loop: epochs over packed arrays, validation, the epoch to keep. Knows no files and no tracker."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.deterministic
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gender_classifier.data.dataset import PackedSplit
from gender_classifier.errors import ModelError
from gender_classifier.model.inference import compute_logits, standardize, to_unit
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import has_batch_norm
from gender_classifier.train.augment import apply_variations, draw_variations
from gender_classifier.train.batches import (
    DeviceSplit,
    draw_mixup_lambda,
    find_neighbours,
    mix_neighbours,
    shuffle,
    weigh_classes,
)
from gender_classifier.train.cpu_convolution import use_cpu_convolutions
from gender_classifier.train.devices import find_device, find_precision
from gender_classifier.train.distributed import World, add_up, gather_rows, wrap
from gender_classifier.train.optimizer import build_optimizer, schedule
from gender_classifier.train.params import TrainParams


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: ``lr`` is the rate of its last step, losses are means per image in nats, accuracies fractions.

    The ``train`` figures are running ones, over augmented (and mixed) images while the weights still moved; the
    ``val`` figures are those of the finished epoch, with the second look of ``model.infer``.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Best:
    """The epoch to keep: best on val by ``params.best_by``, then by the other figure, then the earlier."""

    record: EpochRecord
    state: dict[str, Tensor]
    val_logits: NDArray[np.float32]


class Trainer:
    """Trains a network on packed arrays; iterate over :meth:`epochs`, then read :attr:`best`.

    What is validated and kept is :attr:`averaged`: the exponential moving average of the weights, over
    ``params.ema_epochs``, or the last weights where that is 0.

    Chance comes from ``params.seed`` and the epoch alone, so that an epoch does not depend on what ran before
    it in the process. On one machine, with one number of threads, equal input gives equal weights bit for bit.

    In a :class:`~gender_classifier.train.distributed.World` of several, each takes its part of every batch: all
    draw the same variations for the whole batch, so that figures differ from those of one process by rounding alone
    (and by dropout, where the head has it).
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        train: PackedSplit,
        val: PackedSplit,
        params: TrainParams,
        world: World | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Move ``model`` to the device that ``params`` names and make its optimizer.

        Args:
            model: a network of ``build_model``; trained in place.
            spec: how its input is normalised, and when validation looks twice.
            train: the images to learn from.
            val: the images that choose the best epoch.
            params: everything else.
            world: the processes that train together; None for this one alone.
            rows: of ``train`` to learn from; None for all.

        Raises:
            ParamsError: the device or precision is not to be had here.
        """
        self.device = find_device(params.device)
        self.precision = find_precision(params.precision, self.device)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.best: Best | None = None
        self.records: list[EpochRecord] = []
        self.spec, self.params, self._world = spec, params, world or World()
        self._train, self._val = DeviceSplit(train, self.device, rows), DeviceSplit(val, self.device)
        if self.device.type == "cpu":
            use_cpu_convolutions(model)  # of AlexNet 1.15 times the images/s in bf16, 1.7 times in fp32 (BENCHMARKS.md)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = wrap(self.model, self._world)
        self._ema = AveragedModel(self.model, use_buffers=True) if params.ema_epochs else None
        if self._ema is not None:
            self._ema.n_averaged.fill_(1)  # else the first update would copy the weights instead of averaging them
        self._optimizer = build_optimizer(self.model, params)
        self._class_weights = weigh_classes(self._train.labels) if params.class_balance == "weights" else None
        self._loss_weights = None if self._class_weights is None else self._class_weights.to(self.device)
        # BatchNorm cannot learn from a batch of one image: one that is left over joins the batch before.
        end = len(self._train) - has_batch_norm(model)
        self._cuts = range(params.batch_size, end, params.batch_size)
        self._steps_per_epoch = 1 + len(self._cuts)

    def epochs(self, on_batch: Callable[[int], object] = lambda _: None) -> Iterator[EpochRecord]:
        """Train, and yield a record after each epoch, until the last one or until early stopping.

        After :meth:`load_state_dict` it goes on with the epoch after the saved one.

        Args:
            on_batch: told the number of images after each batch of training and validation.

        Raises:
            ModelError: the loss is no longer a number.
        """
        while not self.finished:
            epoch = len(self.records) + 1
            with _settings(deterministic=self.params.deterministic):
                train_loss, train_accuracy = self._train_epoch(epoch, on_batch)
                logits = self._validate(on_batch)
            val_loss, val_accuracy = _score(logits, self._val.labels)
            lr = self._optimizer.param_groups[-1]["lr"]
            record = EpochRecord(epoch, lr, train_loss, train_accuracy, val_loss, val_accuracy)
            _check_finite(record, self.params.lr)
            self._keep_if_best(record, logits)
            self.records.append(record)
            yield record

    @property
    def averaged(self) -> nn.Module:
        """Return the network that is validated and kept."""
        return self.model if self._ema is None else self._ema.module

    @property
    def num_train(self) -> int:
        """Return the number of training images."""
        return len(self._train)

    @property
    def num_processes(self) -> int:
        """Return how many processes train together."""
        return self._world.size

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or early stopping has struck."""
        done = len(self.records)
        if done and self.best is not None and self.params.early_stopping:
            return done - self.best.record.epoch >= self.params.early_stopping or done >= self.params.epochs
        return done >= self.params.epochs

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the coming epochs depend on: tensors by name, and facts that JSON can hold."""
        assert self.best is not None, "there is no state worth keeping before the first epoch"
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self._ema is not None:
            tensors |= {f"average.{name}": value for name, value in self.averaged.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.state.items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["val_logits"] = torch.from_numpy(self.best.val_logits)
        facts = {"records": [asdict(record) for record in self.records], "best_epoch": self.best.record.epoch}
        return tensors, facts

    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; training then ends as if it had never stopped."""
        self.records = [EpochRecord(**record) for record in facts["records"]]
        best_record = self.records[facts["best_epoch"] - 1]
        self.best = Best(best_record, _below("best", tensors), tensors["val_logits"].numpy())
        self.model.load_state_dict(_below("model", tensors))
        if self._ema is not None:
            self.averaged.load_state_dict(_below("average", tensors))
        state: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, value in _below("optimizer", tensors).items():
            index, _, key = name.partition(".")
            # The fused step walks weights and state in memory order: both must have the same.
            is_image = value.dim() == 4
            state[int(index)][key] = value.contiguous(memory_format=torch.channels_last) if is_image else value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": dict(state), "param_groups": groups})

    def _validate(self, on_batch: Callable[[int], object]) -> NDArray[np.float32]:
        count = len(self._val)
        part = self._world.share(count)
        logits = compute_logits(self.averaged, self.spec, self._val.images[part], on_batch=on_batch)
        on_batch(count - len(logits))  # what other processes did
        return gather_rows(logits, count, self._world, self.device)

    def _train_epoch(self, epoch: int, on_batch: Callable[[int], object]) -> tuple[float, float]:
        params = self.params
        # Chance is drawn on the CPU, so that the same seed draws the same on every device and in every process.
        generator = torch.Generator().manual_seed(mix_seeds(params.seed, epoch))
        torch.manual_seed(mix_seeds(params.seed, epoch, self._world.rank))  # dropout has no generator of its own
        order = self._draw_order(generator)
        # Read after the last step: reading one would wait for the device. Not lists: thousands of small tensors that
        # stay break up the memory that each step frees.
        losses = torch.zeros(self._steps_per_epoch, device=self.device)
        hits = torch.zeros(self._steps_per_epoch, dtype=torch.int64, device=self.device)
        self.model.train()
        for step, rows in enumerate(np.array_split(order, self._cuts)):
            self._set_lr((epoch - 1) * self._steps_per_epoch + step)
            part = self._world.share(len(rows))
            variations = draw_variations(len(rows), params.augment, generator).part(part)
            share = draw_mixup_lambda(params.mixup, generator)
            images, labels = self._load_batch(rows[part])
            images = mix_neighbours(standardize(apply_variations(images, variations), self.spec), share)
            # The weights are channels-last, and so is all that the first layer makes of these planes.
            images = images.to(self._dtype)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._dtype is torch.bfloat16):
                logits = self._network(images)
            logits = logits.float()
            loss = share * self._sum_losses(logits, labels)
            if share < 1:
                loss = loss + (1 - share) * self._sum_losses(logits, labels[find_neighbours(len(labels))])
            loss = loss / self._weigh(rows)
            self._optimizer.zero_grad(set_to_none=True)
            # DDP divides the sum over the processes by their number; this is a part of a mean over all images.
            (loss * self._world.size).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._average((epoch - 1) * self._steps_per_epoch + step)
            losses[step] = loss.detach() * len(rows)
            hits[step] = (logits.detach().argmax(dim=1) == labels).sum()
            on_batch(len(rows))
        sums = [float(losses.cpu().double().sum()), int(hits.sum())]
        total, right = add_up(sums, self._world, self.device)
        return total / len(order), right / len(order)

    def _sum_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.params.label_smoothing
        return F.cross_entropy(logits, labels, weight=self._loss_weights, label_smoothing=smoothing, reduction="sum")

    def _weigh(self, rows: NDArray[np.int64]) -> float:
        """Return what the losses of these images are divided by for their mean."""
        if self._class_weights is None:
            return len(rows)
        return float(self._class_weights.numpy()[self._train.labels[rows]].sum())

    def _draw_order(self, generator: torch.Generator) -> NDArray[np.int64]:
        """Return the rows of an epoch: each once, or with ``sampling`` as many of each class as of the others."""
        count = len(self._train)
        if self.params.class_balance != "sampling":
            return shuffle(count, self.params.shuffle_window, generator)
        share = torch.from_numpy(1 / np.bincount(self._train.labels)[self._train.labels])
        # By inversion: torch.multinomial takes no more than 2**24 categories.
        places = torch.rand(count, generator=generator, dtype=torch.float64) * share.sum()
        return torch.searchsorted(share.cumsum(0), places).clamp_(max=count - 1).numpy()

    def _load_batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return float (n, 3, S, S) in [0, 1], planes in memory as augmentation has them quickest, and int64 (n,)."""
        images, labels = self._train.take(rows)
        return to_unit(images, torch.contiguous_format), labels

    def _average(self, step: int) -> None:
        if self._ema is None:
            return
        horizon = max(self.params.ema_epochs * self._steps_per_epoch, 1.0)
        # The first weights are random: the average forgets them faster than the later ones.
        decay = min(1 - 1 / horizon, (1 + step) / (10 + step))
        self._ema.multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._ema.update_parameters(self.model)

    def _set_lr(self, step: int) -> None:
        rate = self.params.lr * schedule(
            self.params.schedule, step, self.params.epochs * self._steps_per_epoch, self.params.warmup_fraction
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]

    def _rank(self, record: EpochRecord) -> tuple[float, float]:
        accuracy, loss = record.val_accuracy, -record.val_loss
        return (loss, accuracy) if self.params.best_by == "val_loss" else (accuracy, loss)

    def _keep_if_best(self, record: EpochRecord, logits: NDArray[np.float32]) -> None:
        if self.best is not None and self._rank(record) <= self._rank(self.best.record):
            return
        state = {name: value.detach().cpu().clone() for name, value in self.averaged.state_dict().items()}
        self.best = Best(record, state, logits)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def mix_seeds(*seeds: int) -> int:
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    scores, targets = torch.from_numpy(logits).double(), torch.tensor(labels)
    return float(F.cross_entropy(scores, targets)), float((scores.argmax(dim=1) == targets).double().mean())


def _check_finite(record: EpochRecord, lr: float) -> None:
    for name in ("train_loss", "val_loss"):
        value = getattr(record, name)
        if not math.isfinite(value):
            raise ModelError(f"training diverged in epoch {record.epoch}: {name} is {value}; lower `lr` (now {lr:g})")


@contextmanager
def _settings(*, deterministic: bool) -> Iterator[None]:
    """Ask torch for repeatable kernels or quick ones, and give the caller's settings and generators back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        # By default torch then also fills all new memory, for whoever reads what was never written: nothing here does.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
