"""What the service answers with: the schemas of its OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why something was refused."""

    reason: str = Field(description="one word for programs", examples=["truncated"])
    message: str = Field(description="one line for people")


class Failure(BaseModel):
    """The answer to a request that was refused as a whole."""

    error: Problem


class Prediction(BaseModel):
    """What the model says of one image."""

    name: str = Field(description="the file's name as it was sent")
    label: str = Field(description="the likeliest class")
    prob: float = Field(ge=0, le=1, description="calibrated probability of `label`")
    uncertain: bool = Field(description="`prob` is below the service's threshold")
    probs: dict[str, float] = Field(description="calibrated probability of each class")


class Unreadable(BaseModel):
    """One image of several that could not be read; the others are answered."""

    name: str = Field(description="the file's name as it was sent")
    error: Problem


class Explanation(BaseModel):
    """What the model looked at in one image."""

    name: str = Field(description="the file's name as it was sent")
    label: str = Field(description="the likeliest class")
    prob: float = Field(ge=0, le=1, description="calibrated probability of `label`")
    grid: list[list[float]] = Field(
        description="rows from top to bottom: how far `prob` falls when this part of the image is covered"
    )


class Accepted(BaseModel):
    """What one request may hold."""

    max_bytes: int = Field(description="of the whole request")
    max_images: int
    max_pixels: int = Field(description="width times height of one image")
    min_side: int = Field(description="px; the shorter side of one image, as `verify` asked of the training data")
    formats: list[str]


class ModelInfo(BaseModel):
    """The model that answers, and its limits."""

    version: str | None = Field(description="of the package that made the file")
    registry_version: str | None = Field(description="in MLflow's registry, if it was taken from there")
    data_digest: str | None = Field(description="of the data it was trained on")
    classes: list[str]
    image_size: int = Field(description="px; images are scaled to this width and height")
    metrics: dict[str, float] = Field(description="figures on the test set")
    limits: str = Field(description="Markdown; empty where the file says nothing")
    threshold: float = Field(description="a lower probability counts as uncertain")
    needs_key: bool = Field(description="predictions want `Authorization: Bearer KEY`")
    accepts: Accepted


class Health(BaseModel):
    """The service is up."""

    status: str = Field(examples=["ok"])


_REFUSALS = {
    400: "The body is not a whole multipart/form-data body.",
    401: "The API key is missing or wrong.",
    403: "A page of another origin asks.",
    408: "The body took too long to arrive.",
    413: "More bytes than are accepted.",
    415: "The body is not multipart/form-data.",
    422: "There is no image or too many, it cannot be read, or it came in an unknown field.",
    503: "The service is busy; try again.",
}


def describe_refusals(needs_key: bool, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of ``statuses``, and of 401 if a key is asked for."""
    keyed = (401,) if needs_key else ()
    return {status: {"model": Failure, "description": _REFUSALS[status]} for status in sorted((*statuses, *keyed))}


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


def describe_security(needs_key: bool) -> dict[str, Any]:
    """Return what an operation that asks for the key says of it."""
    return {"security": [{"key": []}]} if needs_key else {}


def declare_key(app: FastAPI) -> None:
    """Add the key's scheme to the OpenAPI document."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
