"""The section ``evaluate`` of ``params.yaml``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import BeforeValidator

from gender_classifier.common.schema import Count, Fraction, Name, Real, Renamed, Text, Whole, section

RENAMED_METRICS = Renamed(best_val_accuracy="val/kept_accuracy", best_val_loss="val/kept_loss")
"""Metrics under the names of earlier versions, which versions in a registry still bear."""


def _read_gaps(value: Any) -> Any:
    if value == "none":
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("write none, or sets of evaluate.extra with a limit each, such as {foreign: 0.02}")
    return value


@section
class PromotionParams:
    """When the newest version becomes champion in the model registry."""

    metric: Annotated[Literal["val/kept_accuracy", "val/kept_loss", "test/accuracy", "test/loss"], RENAMED_METRICS]
    min_gain: Annotated[Real, Interval(ge=0, le=100)]
    min_accuracy: Fraction
    max_gap: Annotated[Mapping[Name, Fraction], BeforeValidator(_read_gaps)]


@section
class EvaluateParams:
    """How a model is measured, on the test set and on others."""

    ece_bins: Annotated[Whole, Interval(ge=2, le=1000)]
    worst_mistakes: Annotated[Whole, Interval(ge=0, le=1000)]
    robustness_images: Count
    extra: Mapping[Name, Text]
    promotion: PromotionParams
