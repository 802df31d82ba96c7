"""The section ``preprocess`` of ``params.yaml``."""

from typing import Annotated

from annotated_types import Interval

from gender_classifier.common.schema import Count, Real, Whole, section


@section
class PreprocessParams:
    """Size of the arrays, and choice of the test and validation images where the source has none."""

    image_size: Annotated[Whole, Interval(ge=63, le=512)]
    test_fraction: Annotated[Real, Interval(gt=0, le=0.5)]
    val_fraction: Annotated[Real, Interval(gt=0, le=0.5)]
    split_seed: Count
