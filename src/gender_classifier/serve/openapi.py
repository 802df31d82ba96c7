"""What the OpenAPI document says of bodies, refusals and the key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gender_classifier.serve.schema import Failure

_REFUSALS = {
    400: "The body is not a whole multipart/form-data body.",
    401: "The API key is missing or wrong.",
    403: "A page of another origin sent it.",
    408: "The body took too long to arrive.",
    413: "More bytes than are accepted.",
    415: "The body is not multipart/form-data.",
    422: "There is no picture or too many, it cannot be read, or it came in an unknown field.",
    503: "The service is busy; try again.",
}


def describe_refusals(has_key: bool, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of an endpoint besides 200; 401 where a key is asked for."""
    keyed = (401,) if has_key else ()
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


def describe_security(has_key: bool) -> dict[str, Any]:
    """Return what an endpoint says of the key."""
    return {"security": [{"key": []}]} if has_key else {}


def declare_key(app: FastAPI) -> None:
    """Declare the key as a bearer token."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
