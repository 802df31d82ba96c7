"""The loop: repeatable bit for bit, it learns, it keeps the best epoch, it stops when told."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.utils.deterministic
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from gender_classifier.data.dataset import PackedSplit
from gender_classifier.errors import ModelError
from gender_classifier.metrics.scores import evaluate
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.pipeline.params import load_params
from gender_classifier.train import report
from gender_classifier.train.batches import shuffle
from gender_classifier.train.cpu_convolution import CpuConv2d
from gender_classifier.train.optimizer import schedule
from gender_classifier.train.params import TrainParams
from gender_classifier.train.trainer import EpochRecord, Trainer

REAL = load_params(Path(__file__).parents[2] / "params.yaml").train
# The precision by name: `auto` would test another path on another processor.
PARAMS = replace(REAL, epochs=2, batch_size=16, device="cpu", precision="fp32", lr=3e-4)
SPEC = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def easy(count: int, seed: int) -> PackedSplit:
    """Return noise with a bright upper half for label 1, a bright lower half for label 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    images = rng.integers(0, 120, (count, 64, 64, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:32] += np.uint8(100 * label)
        image[32:] += np.uint8(100 * (1 - label))
    return PackedSplit(images, labels)


TRAIN, VAL = easy(72, 0), easy(24, 1)


def trainer(params: TrainParams = PARAMS, head: str = "linear", train: PackedSplit = TRAIN) -> Trainer:
    torch.manual_seed(params.seed)
    return Trainer(build_model(head, 2, 64), replace(SPEC, head=head), train, VAL, params)


def finish(params: TrainParams = PARAMS, head: str = "linear") -> tuple[list[EpochRecord], dict[str, torch.Tensor]]:
    one = trainer(params, head)
    records = list(one.epochs())
    assert one.best is not None
    return records, one.best.state


@pytest.mark.parametrize("head", ["linear", "full"])
def test_equal_seeds_give_equal_weights_whatever_ran_before(head: str) -> None:
    params = replace(PARAMS, epochs=1, batch_size=36)
    records, state = finish(params, head)
    torch.rand(7)
    again, same = finish(params, head)
    assert records == again
    assert all(torch.equal(state[key], same[key]) for key in state)
    _, other = finish(replace(params, seed=1), head)
    assert not torch.equal(state["classifier.weight" if head == "linear" else "classifier.6.weight"],
                           other["classifier.weight" if head == "linear" else "classifier.6.weight"])  # fmt: skip


def test_training_leaves_torchs_settings_and_generator_as_they_were() -> None:
    one = trainer()
    state, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    list(one.epochs())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.utils.deterministic.fill_uninitialized_memory == fills
    assert torch.are_deterministic_algorithms_enabled() == deterministic


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_learns_the_easy_task(optimizer: str) -> None:
    lr = 0.02 if optimizer == "sgd" else 5e-4
    decay = 0.01 if optimizer == "adamw" else 0.0
    records, _ = finish(replace(PARAMS, optimizer=optimizer, epochs=6, lr=lr, weight_decay=decay))  # type: ignore[arg-type]
    assert records[-1].val_loss < records[0].val_loss
    assert max(record.val_accuracy for record in records) == 1.0
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("best_by", ["val_loss", "val_accuracy"])
def test_the_best_epoch_is_kept_with_its_logits(best_by: str) -> None:
    one = trainer(replace(PARAMS, epochs=4, best_by=best_by))  # type: ignore[arg-type]
    records = list(one.epochs())
    best = one.best
    assert best is not None
    rank = {
        "val_loss": lambda record: (-record.val_loss, record.val_accuracy),
        "val_accuracy": lambda record: (record.val_accuracy, -record.val_loss),
    }[best_by]
    expected = max(records, key=rank)
    assert best.record == expected
    model = build_model("linear", 2, 64)
    model.load_state_dict(best.state)
    np.testing.assert_allclose(compute_logits(model, SPEC, VAL.images), best.val_logits, atol=1e-4)
    report = evaluate(best.val_logits, VAL.labels, classes=SPEC.classes)
    assert report.metrics["accuracy"] == best.record.val_accuracy
    assert report.metrics["loss"] == pytest.approx(best.record.val_loss, rel=1e-6)


def test_every_image_is_seen_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    original = Trainer._load_batch

    def watch(self: Trainer, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(rows)
        return original(self, rows)

    monkeypatch.setattr(Trainer, "_load_batch", watch)
    counted: list[int] = []
    list(trainer(replace(PARAMS, epochs=2)).epochs(counted.append))
    rows = np.concatenate(seen)
    assert sorted(rows[:72]) == sorted(rows[72:]) == list(range(72))
    assert not np.array_equal(rows[:72], rows[72:])
    assert sum(counted) == 2 * (72 + 24)


class _Stuck(nn.Module):
    """Predicts the same whatever it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.weight * 0 + torch.zeros(len(images), 2)


def test_early_stopping_counts_epochs_without_a_better_one() -> None:
    params = replace(PARAMS, epochs=50, early_stopping=3)
    one = Trainer(_Stuck(), SPEC, TRAIN, VAL, params)
    assert len(list(one.epochs())) == 4
    assert one.best is not None
    assert one.best.record.epoch == 1
    assert len(list(Trainer(_Stuck(), SPEC, TRAIN, VAL, replace(params, epochs=5, early_stopping=0)).epochs())) == 5


def test_a_diverged_loss_stops_with_advice() -> None:
    with pytest.raises(ModelError, match=r"diverged in epoch 1: train_loss is .*; lower `lr` \(now 100\)"):
        list(trainer(replace(PARAMS, optimizer="sgd", lr=100.0, schedule="constant")).epochs())


def test_label_smoothing_raises_the_training_loss_alone() -> None:
    plain, smooth = (finish(replace(PARAMS, epochs=4, label_smoothing=value))[0][-1] for value in (0.0, 0.3))
    assert smooth.train_loss > plain.train_loss + 0.1


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "constant"])
def test_schedules(name: str) -> None:
    rates = [schedule(name, step, 100, 0.2) for step in range(100)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1
    peak = rates.index(1)
    assert peak == (19 if name == "one_cycle" else 0)
    if name != "constant":
        assert rates[-1] < 0.001
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert schedule("one_cycle", 0, 1, 0.2) == 1


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_each_precision_trains_repeats_and_goes_on(precision: str) -> None:
    """In bf16 the convolutions are others; a processor without it emulates it, at 50 ms an image."""
    params, few = replace(PARAMS, precision=precision, batch_size=4), PackedSplit(TRAIN.images[:10], TRAIN.labels[:10])  # type: ignore[arg-type]
    whole, other = trainer(params, train=few), trainer(params, train=few)
    assert whole.precision == precision
    assert any(isinstance(layer, CpuConv2d) for layer in whole.model.modules())
    records = list(whole.epochs())
    assert all(math.isfinite(record.train_loss) and math.isfinite(record.val_loss) for record in records)
    assert {value.dtype for value in whole.model.state_dict().values()} == {torch.float32}
    next(other.epochs())
    again = trainer(params, train=few)
    again.load_state_dict(*other.state_dict())
    assert [*other.records, *again.epochs()] == records
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in whole.model.state_dict().items())


def test_both_precisions_learn_the_same_but_for_rounding() -> None:
    params = replace(PARAMS, epochs=1, batch_size=4, ema_epochs=0.0, schedule="constant")
    few = PackedSplit(TRAIN.images[:8], TRAIN.labels[:8])
    changes = []
    for precision in ("bf16", "fp32"):
        one = trainer(replace(params, precision=precision), train=few)  # type: ignore[arg-type]
        before = {name: value.clone() for name, value in one.model.state_dict().items()}
        next(one.epochs())
        changes.append(torch.cat([(value - before[name]).flatten() for name, value in one.model.state_dict().items()]))
    assert torch.cosine_similarity(changes[0], changes[1], dim=0) > 0.9


def test_the_average_of_the_weights_is_what_is_kept() -> None:
    """The first step's decay is 0.1; from then on the definition, followed by hand on the weights of each step."""
    one = trainer(replace(PARAMS, ema_epochs=0.5))
    followed: dict[str, torch.Tensor] = {name: value.clone() for name, value in one.model.state_dict().items()}
    original, steps = one._average, math.ceil(72 / 16)

    def follow(step: int) -> None:
        original(step)
        decay = min(1 - 1 / (0.5 * steps), (1 + step) / (10 + step))
        for name, value in one.model.state_dict().items():
            followed[name].lerp_(value, 1 - decay)

    one._average = follow  # type: ignore[method-assign]
    list(one.epochs())
    assert one.best is not None
    assert one.best.record.epoch == 2
    for name, value in one.best.state.items():
        torch.testing.assert_close(value, followed[name])
        assert not torch.equal(value, one.model.state_dict()[name])


def test_no_average_keeps_the_last_weights() -> None:
    one = trainer(replace(PARAMS, ema_epochs=0.0))
    list(one.epochs())
    assert one.best is not None
    if one.best.record.epoch == 2:
        assert all(torch.equal(value, one.model.state_dict()[name]) for name, value in one.best.state.items())
    assert not [name for name in one.state_dict()[0] if name.startswith("average.")]


@pytest.fixture
def unequal() -> PackedSplit:
    """Return 54 images of class 0 and 18 of class 1."""
    split = easy(108, 0)
    rows = np.concatenate([np.flatnonzero(split.labels == 0), np.flatnonzero(split.labels == 1)[:18]])
    return PackedSplit(split.images[rows], split.labels[rows])


def test_unequal_classes_are_drawn_equally(unequal: PackedSplit) -> None:
    params = replace(PARAMS, class_balance="sampling")
    one = Trainer(build_model("linear", 2, 64), SPEC, unequal, VAL, params)
    generator = torch.Generator().manual_seed(0)
    drawn = np.concatenate([unequal.labels[one._draw_order(generator)] for _ in range(40)])
    assert len(drawn) == 40 * 72
    assert 0.47 < drawn.mean() < 0.53
    assert len(list(one.epochs())) == 2


def test_unequal_classes_weigh_equally(unequal: PackedSplit) -> None:
    one = Trainer(build_model("linear", 2, 64), SPEC, unequal, VAL, replace(PARAMS, class_balance="weights"))
    assert one._class_weights is not None
    weights = one._class_weights.numpy()
    np.testing.assert_allclose(weights * np.bincount(unequal.labels), 36)
    assert len(list(one.epochs())) == 2
    plain = Trainer(build_model("linear", 2, 64), SPEC, unequal, VAL, PARAMS)
    assert plain._class_weights is None


def test_a_pretrained_trunk_learns_at_its_own_rate() -> None:
    one = trainer(replace(PARAMS, weights="imagenet", trunk_lr=0.0, weight_decay=0.0, ema_epochs=0.0))
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    records = list(one.epochs())
    after = one.model.state_dict()
    assert {name for name in before if torch.equal(before[name], after[name])} == {
        name for name in before if name.startswith("features.")
    }
    assert records[0].lr > 0


@given(st.integers(1, 3000), st.integers(0, 1500), st.integers(0, 2**32))
def test_an_order_in_windows_holds_every_row_once_and_touches_few_blocks_at_a_time(
    count: int, window: int, seed: int
) -> None:
    order = shuffle(count, window, torch.Generator().manual_seed(seed))
    assert sorted(order) == list(range(count))
    for start in range(0, count if 0 < window < count else 0, max(window, 1)):
        blocks = np.unique(order[start : start + window] // 64)
        assert len(blocks) <= -(-window // 64) + 2


def test_a_window_mixes_what_lies_apart_in_the_file() -> None:
    """Arrays are sorted by class: without blocks from all over, a window would hold one class alone."""
    order = shuffle(64_000, 6400, torch.Generator().manual_seed(0))
    shares = [(order[start : start + 6400] < 32_000).mean() for start in range(0, 64_000, 6400)]
    assert max(abs(share - 0.5) for share in shares) < 0.2
    assert not np.array_equal(order, shuffle(64_000, 6400, torch.Generator().manual_seed(1)))


def test_training_in_windows_learns_and_repeats() -> None:
    params = replace(PARAMS, shuffle_window=24)
    records, state = finish(params)
    assert (records, list(state)) == (finish(params)[0], list(finish(params)[1]))
    assert records != finish()[0]


@pytest.mark.parametrize("balance", ["none", "weights"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_batch_is_torchs_mean(unequal: PackedSplit, balance: str, smoothing: float) -> None:
    params = replace(PARAMS, class_balance=balance, label_smoothing=smoothing)  # type: ignore[arg-type]
    one = Trainer(build_model("linear", 2, 64), SPEC, unequal, VAL, params)
    rows = np.array([0, 5, 60, 70, 71])
    logits, labels = torch.randn(5, 2), torch.from_numpy(unequal.labels[rows])
    expected = F.cross_entropy(logits, labels, weight=one._class_weights, label_smoothing=smoothing)
    torch.testing.assert_close(one._sum_losses(logits, labels) / one._weigh(rows), expected)


def test_images_that_lie_on_the_device_train_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    records, state = finish()
    monkeypatch.setattr("gender_classifier.train.batches._has_room", lambda device, size: True)
    assert isinstance(trainer()._train.images, torch.Tensor)
    again, same = finish()
    assert records == again
    assert all(torch.equal(state[key], same[key]) for key in state)


def test_val_calibrates_with_a_bias_unless_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    val, model = easy(40, 1), build_model("linear", 2, 64).eval()
    logits = compute_logits(model, SPEC, val.images)
    seen = []

    def fit(
        predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]], *given: object, temperature: float
    ) -> tuple[float, ...]:
        seen.append((predict(val.images), *given, temperature))
        return (0.5, -0.5)

    monkeypatch.setattr(report, "fit_robust_bias", fit)
    few = report.calibrate(model, SPEC, val, logits, replace(PARAMS, robust_bias=True))
    assert (few.bias, seen) == ((), [])
    monkeypatch.setattr(report, "is_enough", lambda labels, num_classes: (len(labels), num_classes) == (40, 2))
    plain = report.calibrate(model, SPEC, val, logits, replace(PARAMS, robust_bias=False))
    assert (plain.bias, seen) == ((), [])
    biased = report.calibrate(model, SPEC, val, logits, replace(PARAMS, robust_bias=True))
    assert biased == replace(plain, bias=(0.5, -0.5))
    predicted, images, labels, given, temperature = seen[0]
    assert images is val.images
    assert labels is val.labels
    assert given is logits
    assert temperature == plain.temperature
    np.testing.assert_array_equal(predicted, logits)  # without a bias
