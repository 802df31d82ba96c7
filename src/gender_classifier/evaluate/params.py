"""The section ``evaluate`` of ``params.yaml``."""

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Interval

from gender_classifier.common.schema import Count, Fraction, Name, Real, Text, Whole, section


@section
class PromotionParams:
    """When the newest version becomes champion in the model registry."""

    metric: Literal["best_val_accuracy", "best_val_loss", "test/accuracy", "test/loss"]
    min_gain: Annotated[Real, Interval(ge=0, le=100)]
    min_accuracy: Fraction


@section
class EvaluateParams:
    """How the report on the test set is drawn up."""

    ece_bins: Annotated[Whole, Interval(ge=2, le=1000)]
    worst_mistakes: Annotated[Whole, Interval(ge=0, le=1000)]
    robustness_images: Count
    extra: Mapping[Name, Text]
    promotion: PromotionParams
