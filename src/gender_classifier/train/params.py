"""The section ``train`` of ``params.yaml``, and the top-level keys that people change from run to run."""

from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import AfterValidator

from gender_classifier.common.schema import TOP_LEVEL, Count, Fraction, Real, Switch, Text, Whole, section


def _refuse_one(folds: int) -> int:
    if folds == 1:
        raise ValueError("a model needs at least one other fold to train on; write 0 for none, or at least 2")
    return folds


@section
class AugmentParams:
    """How far a training image may be varied. Zero switches a variation off."""

    flip: Fraction
    rotate: Annotated[Real, Interval(ge=0, le=180)]
    scale: Annotated[Real, Interval(ge=0, le=0.9)]
    translate: Annotated[Real, Interval(ge=0, le=0.5)]
    translate_height: Annotated[Real, Interval(ge=0, le=0.5)]
    brightness: Fraction
    contrast: Fraction
    grey: Fraction
    blur: Fraction
    jpeg: Fraction
    stretch: Annotated[Real, Interval(ge=0, le=0.5)]
    erase: Fraction


@section
class TrainParams:
    """Everything that decides the trained model, given the arrays."""

    epochs: Annotated[Whole, Interval(ge=1, le=100_000), TOP_LEVEL]
    batch_size: Annotated[Whole, Interval(ge=1, le=1_000_000), TOP_LEVEL]
    lr: Annotated[Real, Interval(gt=0, le=100), TOP_LEVEL]
    weight_decay: Annotated[Real, Interval(ge=0, le=100), TOP_LEVEL]
    seed: Annotated[Whole, Interval(ge=0, le=2**32 - 1), TOP_LEVEL]
    network: Text
    stem: Literal["original", "small"]
    head: Literal["linear", "full"]
    weights: Text
    trunk_lr: Annotated[Real, Interval(ge=0, le=100)]
    class_balance: Literal["none", "weights", "sampling"]
    optimizer: Literal["adam", "adamw", "sgd"]
    momentum: Annotated[Real, Interval(ge=0, le=0.9999)]
    schedule: Literal["one_cycle", "cosine", "constant"]
    warmup_fraction: Annotated[Real, Interval(ge=0, le=0.9)]
    label_smoothing: Annotated[Real, Interval(ge=0, le=0.9)]
    mixup: Annotated[Real, Interval(ge=0, le=10)]
    ema_epochs: Annotated[Real, Interval(ge=0, le=1000)]
    tta_margin: Annotated[Real, Interval(ge=0, le=1000)]
    robust_bias: Switch
    best_by: Literal["val_loss", "val_accuracy"]
    early_stopping: Count
    device: Text
    precision: Literal["auto", "bf16", "fp32"]
    deterministic: Switch
    processes: Annotated[Whole, Interval(ge=1, le=1024)]
    shuffle_window: Count
    label_folds: Annotated[Whole, Interval(ge=0, le=100), AfterValidator(_refuse_one)]
    augment: AugmentParams
