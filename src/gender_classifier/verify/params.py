"""The section ``verify`` of ``params.yaml``."""

from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import PlainValidator

from gender_classifier.common.schema import Fraction, Positive, Real, Whole, section

FLAGS = ("too_dark", "too_light", "blurred", "low_information", "odd_shape")
"""What :mod:`~gender_classifier.verify.quality` may find about an image."""


def _check_flags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not set(map(str, value)) <= set(FLAGS):
        raise ValueError(f"write a list, [] or some of {', '.join(FLAGS)}")
    return tuple(value)


@section
class QualityParams:
    """Thresholds of the image-quality flags, and which of them reject."""

    min_highlight: Fraction
    max_shadow: Fraction
    min_sharpness: Annotated[Real, Interval(ge=0, le=5)]
    min_entropy: Annotated[Real, Interval(ge=0, le=8)]
    min_aspect_ratio: Fraction
    reject: Annotated[tuple[str, ...], PlainValidator(_check_flags)]


@section
class VerifyParams:
    """Conditions for an image to be fit to use, and the treatment of the others."""

    min_side: Positive
    max_pixels: Positive
    wrong_mode: Literal["convert", "reject"]
    exact_duplicates: Literal["drop", "keep"]
    near_duplicates: Literal["group", "drop", "keep"]
    near_duplicate_distance: Annotated[Whole, Interval(ge=0, le=128)]
    conflicting_labels: Literal["drop", "keep"]
    leakage: Literal["drop_train", "drop_test", "keep"]
    max_rejected: Fraction
    quality: QualityParams
