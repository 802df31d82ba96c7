"""``source`` and the section ``ingest`` of ``params.yaml``."""

from typing import Annotated

from gender_classifier.common.schema import TOP_LEVEL, Count, Positive, Text, section


@section
class IngestParams:
    """Source of the images."""

    source: Annotated[Text, TOP_LEVEL]
    sample_seed: Count
    sample_train: Positive
    sample_val: Positive
    kaggle_version: Positive
