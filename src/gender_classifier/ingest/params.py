"""``source`` and the section ``ingest`` of ``params.yaml``."""

import json
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from gender_classifier.common.schema import TOP_LEVEL, Count, Positive, Text, section
from gender_classifier.data.layouts.naming import AUTO
from gender_classifier.data.layouts.tables import COLUMNS


def _pack_classes(value: Any) -> str:
    """Return the mapping of classes as JSON: one text for MLflow, whatever characters the names have."""
    if value == AUTO:
        return AUTO
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, dict):
        raise ValueError(f"write {AUTO}, or a mapping such as {{child: [child, kids], adult: [woman, man]}}")
    named = {label: names if isinstance(names, list) else [names] for label, names in value.items()}
    listed = [name for names in named.values() for name in names]
    # YAML reads 0 as a number, which has one spelling, but also `no` as false.
    if odd := [name for name in (*named, *listed) if not isinstance(name, str) and type(name) is not int]:
        raise ValueError(f"it holds {type(odd[0]).__name__} {odd[0]!r}, not a name; put names in quotes")
    texts = {str(label): [str(name) for name in names] for label, names in named.items()}
    if len(texts) < 2 or not all(texts.values()) or len({str(name) for name in listed}) < len(listed):
        raise ValueError("it must have at least two classes, each with names, and each name once")
    return json.dumps(texts, ensure_ascii=False)


def _check_columns(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not set(value) <= set(COLUMNS):
        raise ValueError(f"write {{}}, or headers by their role: {', '.join(COLUMNS)}")
    if odd := [name for name in value.values() if not isinstance(name, str) or not name.strip()]:
        raise ValueError(f"it holds {type(odd[0]).__name__} {odd[0]!r}, not a header; put headers in quotes")
    if len(set(value.values())) < len(value):
        raise ValueError("it names a header twice; a column has one role")
    return dict(value)


Columns = Annotated[dict[str, str], PlainValidator(_check_columns)]
Classes = Annotated[str, PlainValidator(_pack_classes)]


@section
class IngestParams:
    """Source of the images, and what its class names mean."""

    source: Annotated[Text, TOP_LEVEL]
    classes: Classes
    format: Literal["auto", "folders", "table", "celeba", "fairface", "utkface"]
    columns: Columns
    sample_seed: Count
    sample_train: Positive
    sample_val: Positive
    kaggle_version: Positive
