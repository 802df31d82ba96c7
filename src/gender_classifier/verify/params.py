"""The section ``verify`` of ``params.yaml``."""

from typing import Annotated, Literal

from annotated_types import Interval

from gender_classifier.common.schema import Fraction, Positive, Whole, section


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
