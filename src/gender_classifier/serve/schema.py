"""Schemas of the service's OpenAPI document, and what is taken from a model file for them."""

import json
import math
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError


class Problem(BaseModel):
    """Reason why a request or an image was refused."""

    reason: str = Field(description="one word for programs", examples=["truncated"])
    message: str = Field(description="one line for people")


class Failure(BaseModel):
    """Answer to a refused request."""

    error: Problem


class Prediction(BaseModel):
    """Classification of one image."""

    name: str = Field(description="the file's name as sent")
    label: str = Field(description="the most probable class")
    prob: float = Field(ge=0, le=1, description="calibrated probability of `label`")
    uncertain: bool = Field(description="`prob` is below the service's threshold")
    unfamiliar: bool | None = Field(
        description="the image is unlike those that the model was trained on, so `label` says little; null if the "
        "model cannot tell"
    )
    probs: dict[str, float] = Field(description="calibrated probability of each class")


class Unreadable(BaseModel):
    """An unreadable image among several; the others are classified."""

    name: str = Field(description="the file's name as sent")
    error: Problem


class Explanation(BaseModel):
    """Occlusion sensitivity of one image."""

    name: str = Field(description="the file's name as sent")
    label: str = Field(description="the most probable class")
    prob: float = Field(ge=0, le=1, description="calibrated probability of `label`")
    grid: list[list[float]] = Field(
        description="rows from top to bottom: by how much `prob` falls when this part of the image is covered"
    )


class Cropped(BaseModel):
    """Images that lose their sides before they are resized to a square."""

    above: float = Field(description="width over height; narrower images are left as they are")
    aspect: float = Field(description="width over height of what is left, the middle")


class Accepted(BaseModel):
    """Limits of one request."""

    max_bytes: int = Field(description="size of the whole request")
    max_images: int
    max_pixels: int = Field(description="width times height of an image")
    min_side: int = Field(description="px; the shorter side of an image, as `verify` required of the training data")
    crop: Cropped | None = Field(description="images that are wider than the training images")
    formats: list[str]


class Measured(BaseModel):
    """Accuracy on one set of images."""

    name: str
    images: int
    accuracy: FiniteFloat
    accuracy_low: FiniteFloat = Field(description="95 % interval of `accuracy`")
    accuracy_high: FiniteFloat
    recalls: dict[str, FiniteFloat] = Field(description="by class; without those that are not known")


class Calibration(BaseModel):
    """Labelled images to which `gender-classifier calibrate` has fitted the probabilities."""

    images: int = Field(ge=1)
    counts: dict[str, int] = Field(description="images of each class")
    digest: str = Field(description="SHA-256 over names, labels and contents of the images")
    temperature: FiniteFloat = Field(gt=0)
    bias: dict[str, FiniteFloat] = Field(description="by class, added to the logarithm of the probability")


class ModelInfo(BaseModel):
    """The loaded model and its limits."""

    version: str | None = Field(description="version of the package that wrote the model file")
    registry_version: str | None = Field(description="version in MLflow's registry, if loaded from there")
    data_digest: str | None = Field(description="digest of the training data")
    network: str | None = Field(description="what the model is, such as AlexNet")
    classes: list[str]
    image_size: int = Field(description="px; images are scaled to this width and height")
    metrics: dict[str, float] = Field(description="metrics on the test set")
    measured: list[Measured] = Field(description="every set that the model was measured on, the worst first")
    calibration: Calibration | None = Field(
        default=None,
        description="fitted to images of the user's own, after `metrics` and `measured`; null if it was not",
    )
    limits: str = Field(description="known limits, in Markdown; empty if the file has none")
    threshold: float = Field(description="predictions with a lower probability count as uncertain")
    needs_key: bool = Field(description="predictions require `Authorization: Bearer KEY`")
    accepts: Accepted


class Health(BaseModel):
    """The service is up."""

    status: str = Field(examples=["ok"])


_REFUSALS = {
    400: "The body is not a complete multipart/form-data body.",
    401: "The API key is missing or wrong.",
    403: "The request comes from a page of another origin.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "The body is not multipart/form-data.",
    422: "There are no images or too many, the image cannot be read, or a field is unknown.",
    503: "The service is busy; try again.",
}


def describe_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of ``statuses``."""
    return {status: {"model": Failure, "description": _REFUSALS[status]} for status in sorted(statuses)}


def describe_body(name: str, max_images: int | None) -> dict[str, Any]:
    """Describe a multipart body of one field; ``max_images`` None means exactly one file."""
    file = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": max_images}
    schema = {
        "type": "object",
        "properties": {name: file if max_images is None else files},
        "required": [name],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def parse_metrics(text: str) -> dict[str, float]:
    """Return the finite numbers in a JSON object; none of a malformed text."""
    try:
        found = {key: float(value) for key, value in json.loads(text).items() if isinstance(value, (int, float))}
    except (ValueError, AttributeError, OverflowError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def parse_calibration(text: str | None) -> dict[str, object] | None:
    """Return the calibration in a JSON object; None without one, or of a malformed text."""
    try:
        return None if text is None else Calibration.model_validate_json(text).model_dump()
    except ValidationError:
        return None


def parse_measured(text: str) -> list[dict[str, object]]:
    """Return the sets in a JSON list; none of a malformed text."""
    try:
        return [found.model_dump() for found in TypeAdapter(list[Measured]).validate_json(text)]
    except ValidationError:
        return []
