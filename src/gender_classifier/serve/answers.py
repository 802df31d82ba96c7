"""Refusals as JSON, with the headers that every answer has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gender_classifier.serve.uploads import RequestError

SECURITY_HEADERS = {
    # blob: is the images that the page shows before, and without, any upload.
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "object-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def build_failure(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused as a whole."""
    return JSONResponse(describe_failure(reason, message), status, headers)


def refuse(error: RequestError) -> JSONResponse:
    """Return the answer that an error stands for."""
    return build_failure(error.status, error.reason, str(error), error.headers)


def describe_failure(reason: str, message: str) -> dict[str, dict[str, str]]:
    """Return the body of a refusal."""
    return {"error": {"reason": reason, "message": message}}


def encode_failure(reason: str, message: str) -> bytes:
    """Return the body of a refusal as it is sent."""
    return json.dumps(describe_failure(reason, message), separators=(",", ":")).encode()


def add_error_answers(app: FastAPI, on_refusal: Callable[[str], object]) -> None:
    """Answer every error as JSON; ``on_refusal`` is told the reason of each refused request."""

    @app.exception_handler(RequestError)
    async def answer_refusal(_: Request, error: RequestError) -> Response:
        on_refusal(error.reason)
        return refuse(error)

    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:100]}: {error.detail}; the endpoints are listed at /docs"
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"
        return build_failure(
            error.status_code, "not_found" if error.status_code == 404 else "refused", message, headers
        )

    @app.exception_handler(ClientDisconnect)
    async def drop(_: Request, __: ClientDisconnect) -> Response:
        return build_failure(400, "disconnected", "the client has gone")

    @app.exception_handler(Exception)
    async def apologize(_: Request, __: Exception) -> Response:
        return build_failure(500, "internal", "a defect of the service; its log says more")
