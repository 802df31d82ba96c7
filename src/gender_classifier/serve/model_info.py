"""What ``GET /model`` answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from gender_classifier.data.formats.image_files import FORMATS
from gender_classifier.predict.predictor import Predictor
from gender_classifier.serve.settings import Settings


def describe_model(predictor: Predictor, settings: Settings) -> dict[str, object]:
    """Return what ``GET /model`` answers; what a file of an older version lacks is null or empty."""
    metadata = predictor.metadata
    return {
        "version": metadata.get("version"),
        "registry_version": settings.registry_version,
        "data_digest": metadata.get("data_digest"),
        "classes": list(predictor.classes),
        "image_size": predictor.image_size,
        "metrics": _read_metrics(metadata),
        "limits": metadata.get("limits", ""),
        "threshold": settings.threshold,
        "needs_key": settings.api_key is not None,
        "accepts": {
            "max_bytes": settings.max_bytes,
            "max_images": settings.max_images,
            "max_pixels": settings.max_pixels,
            "formats": list(FORMATS),
        },
    }


def _read_metrics(metadata: Mapping[str, str]) -> dict[str, float]:
    try:
        entries = json.loads(metadata.get("metrics", "{}")).items()
        found = {key: float(value) for key, value in entries if isinstance(value, (int, float))}
    except (ValueError, AttributeError, OverflowError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if math.isfinite(value)}
