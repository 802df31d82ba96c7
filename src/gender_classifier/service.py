"""The model over HTTP: predictions, heat maps, a page for people, figures for Prometheus.

Nothing of a request is written to disk, and no path is taken from one.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gender_classifier.batching import Batcher
from gender_classifier.decoding import Decoders
from gender_classifier.errors import ImageError
from gender_classifier.explain import build_occlusions, compute_drops
from gender_classifier.image_files import FORMATS
from gender_classifier.predictor import Predictor
from gender_classifier.service_frame import Frame, Metrics
from gender_classifier.service_schema import Explanation, Failure, Health, ModelInfo, Prediction, Unreadable
from gender_classifier.uploads import Capacity, RequestError, Upload, check_length, discard, read_uploads

# Of one call of the model: beyond it, more images at once are no quicker each, and others wait longer.
_MAX_BATCH = 32
# A heat map's copies go in pieces, so that predictions get their turn between them.
_EXPLAIN_BATCH = 8
# Processes; more than cores would only hold more pictures in memory.
_DECODERS = 2
# Of refused bodies, times what is allowed, that is read and dropped so that the client sees the answer.
_DISCARDED = 4
# s; a body that takes longer is refused.
_BODY_SECONDS = 60

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


@dataclass(frozen=True)
class Settings:
    """What the service takes, and from whom."""

    max_bytes: int = 16 * 2**20
    """Of one request's body."""
    max_images: int = 64
    """Of one request."""
    max_pixels: int = 25_000_000
    """Of one picture; decoded, 25 million are 75 MB, and two are decoded at once."""
    max_requests: int = 64
    """Worked on at once, the waiting included; one more is told to come again."""
    max_held_bodies: int = 8
    """Bodies of ``max_bytes`` that are held at once; smaller ones are more."""
    threshold: float = 0.8
    """A lower probability counts as uncertain."""
    api_key: str | None = None
    """What predictions, heat maps and metrics ask for."""
    registry_version: str | None = None
    """Of the model, if it came from MLflow's registry."""


def build_app(predictor: Predictor, settings: Settings) -> FastAPI:
    """Return the service as an ASGI application."""
    metrics = Metrics()
    service = _Service(predictor, settings, metrics)

    app = FastAPI(
        title="gender-classifier",
        version=predictor.metadata.get("version", "unknown"),
        description="Says `female` or `male` of tight face crops. Two labels are not what gender is: see `GET /model`.",
        docs_url=None,
        redoc_url=None,
        lifespan=service.run,
    )
    app.add_middleware(Frame, metrics=metrics, paths={*_PAGE, *_API})
    _add_error_answers(app, metrics)
    _add_api(app, service)
    for path, (name, media_type) in _PAGE.items():
        app.add_api_route(path, _serve_file(name, media_type), include_in_schema=False)
    return app


_API = ("/predict", "/explain", "/model", "/health", "/metrics", "/openapi.json")


def _add_api(app: FastAPI, service: _Service) -> None:
    settings = service.settings

    @app.post(
        "/predict",
        summary="Classify one or many pictures",
        description="The answers are in the order of the pictures. Of several, one that cannot be read is answered "
        "with `error` in its place; a single one is refused with status 422.",
        responses=_responses(settings, 400, 408, 413, 415, 422, 503),
        response_model=list[Prediction | Unreadable],
        openapi_extra=_describe_body("images", settings.max_images) | _security(settings),
    )
    async def predict(request: Request) -> Response:
        return await service.predict(request)

    @app.post(
        "/explain",
        summary="Heat map of one picture",
        description="Covers each part of the picture in turn and says how far the probability falls (occlusion "
        "sensitivity). Costs as much as 65 predictions.",
        responses=_responses(settings, 400, 408, 413, 415, 422, 503),
        response_model=Explanation,
        openapi_extra=_describe_body("image", None) | _security(settings),
    )
    async def explain(request: Request) -> Response:
        return await service.explain(request)

    @app.get("/model", summary="The model: version, data, figures, limits", response_model=ModelInfo)
    async def model() -> Response:
        return JSONResponse(service.info)

    @app.get("/health", summary="Whether the service is up", response_model=Health)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_responses(settings)},
        openapi_extra=_security(settings),
    )
    async def metrics(request: Request) -> Response:
        service.check_key(request)
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    if settings.api_key is not None:
        _declare_key(app)


class _Service:
    """The endpoints' work."""

    def __init__(self, predictor: Predictor, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.info = describe_model(predictor, settings)
        self._classes = predictor.classes
        self._key = settings.api_key.encode() if settings.api_key is not None else None
        self._decoders = Decoders(
            _DECODERS,
            image_size=predictor.image_size,
            max_pixels=settings.max_pixels,
            max_bytes=settings.max_bytes,
        )
        self._model = ThreadPoolExecutor(1, "model")
        self._batcher = Batcher(
            predictor.compute_probs, self._model, max_batch=_MAX_BATCH, observe=metrics.batch_images.observe
        )
        self._capacity = Capacity(settings.max_requests, settings.max_held_bodies * settings.max_bytes)

    async def predict(self, request: Request) -> Response:
        with self._capacity.admit() as hold:
            uploads = await self._receive(request, "images", self.settings.max_images, hold)
            prepared = await asyncio.gather(*map(self._prepare, uploads))
            arrays = [one for one in prepared if not isinstance(one, ImageError)]
            if len(uploads) == 1 and not arrays:
                raise _refuse_image(prepared[0])
            probs = iter(await self._batcher.compute(np.stack(arrays)) if arrays else ())
        answers = [
            {"name": upload.name, **self._report(one)}
            if isinstance(one, ImageError)
            else {"name": upload.name, **self._describe(next(probs))}
            for upload, one in zip(uploads, prepared, strict=True)
        ]
        return JSONResponse(answers)

    async def explain(self, request: Request) -> Response:
        with self._capacity.admit() as hold:
            (upload,) = await self._receive(request, "image", 1, hold)
            image = await self._prepare(upload)
            if isinstance(image, ImageError):
                raise _refuse_image(image)
            copies = build_occlusions(image)
            starts = range(0, len(copies), _EXPLAIN_BATCH)
            # One after the other: whoever asks for a prediction meanwhile is between two of them.
            parts = [await self._batcher.compute(copies[start : start + _EXPLAIN_BATCH]) for start in starts]
        probs = np.concatenate(parts)
        label = int(probs[0].argmax())
        grid = [[round(value, 5) for value in row] for row in compute_drops(probs, label).tolist()]
        name, prob = self._classes[label], _as_prob(probs[0, label])
        return JSONResponse({"name": upload.name, "label": name, "prob": prob, "grid": grid})

    @asynccontextmanager
    async def run(self, _: FastAPI) -> AsyncIterator[None]:
        """Leave nothing that decodes when the service stops."""
        try:
            yield
        finally:
            self._decoders.stop()

    def check_key(self, request: Request) -> None:
        """Refuse with 401 who does not bring the key."""
        if self._key is None:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode("latin-1"), self._key):
            raise RequestError(
                401,
                "no_key",
                "send the service's API key as `Authorization: Bearer KEY`",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _receive(self, request: Request, name: str, max_images: int, hold: Callable[[int], None]) -> list[Upload]:
        settings, chunks = self.settings, request.stream()
        try:
            self.check_key(request)
            length = request.headers.get("content-length", "")
            check_length(int(length) if length.isdecimal() else 0, settings.max_bytes)
            return await asyncio.wait_for(
                read_uploads(
                    chunks,
                    request.headers.get("content-type", ""),
                    name=name,
                    max_images=max_images,
                    max_bytes=settings.max_bytes,
                    hold=hold,
                ),
                _BODY_SECONDS,
            )
        except TimeoutError:
            raise RequestError(408, "slow", f"the request took more than {_BODY_SECONDS} s to arrive") from None
        except RequestError:
            if "expect" not in request.headers:  # such a client waits for the answer before it sends
                await _discard_rest(chunks, _DISCARDED * settings.max_bytes)
            raise

    async def _prepare(self, upload: Upload) -> NDArray[np.uint8] | ImageError:
        try:
            image = await asyncio.wrap_future(self._decoders.submit(upload.data))
        except ImageError as error:
            return error
        self.metrics.images.inc()
        return image

    def _report(self, error: ImageError) -> dict[str, object]:
        self.metrics.errors.labels(error.reason).inc()
        return {"error": {"reason": error.reason, "message": str(error)}}

    def _describe(self, probs: NDArray[np.float32]) -> dict[str, object]:
        label = int(probs.argmax())
        prob = _as_prob(probs[label])
        return {
            "label": self._classes[label],
            "prob": prob,
            "uncertain": prob < self.settings.threshold,
            "probs": {name: _as_prob(value) for name, value in zip(self._classes, probs, strict=True)},
        }


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


def _as_prob(value: np.float32) -> float:
    return round(min(max(float(value), 0.0), 1.0), 6)


def _refuse_image(error: NDArray[np.uint8] | ImageError) -> RequestError:
    assert isinstance(error, ImageError)
    return RequestError(422, error.reason, str(error))


async def _discard_rest(chunks: AsyncIterator[bytes], max_bytes: int) -> None:
    with suppress(asyncio.TimeoutError, ClientDisconnect):
        await asyncio.wait_for(discard(chunks, max_bytes), _BODY_SECONDS)


def _failure(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"reason": reason, "message": message}}, status, headers)


_REFUSALS = {
    400: "The body is not a whole multipart/form-data body.",
    401: "The API key is missing or wrong.",
    408: "The body took too long to arrive.",
    413: "More bytes than are accepted.",
    415: "The body is not multipart/form-data.",
    422: "There is no picture or too many, it cannot be read, or it came in an unknown field.",
    503: "The service is busy; try again.",
}


def _responses(settings: Settings, *statuses: int) -> dict[int | str, dict[str, Any]]:
    keyed = (401,) if settings.api_key is not None else ()
    return {status: {"model": Failure, "description": _REFUSALS[status]} for status in sorted((*statuses, *keyed))}


def _describe_body(name: str, max_images: int | None) -> dict[str, Any]:
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


def _security(settings: Settings) -> dict[str, Any]:
    return {"security": [{"key": []}]} if settings.api_key is not None else {}


def _declare_key(app: FastAPI) -> None:
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_error_answers(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        metrics.errors.labels(error.reason).inc()
        return _failure(error.status, error.reason, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:100]}: {error.detail}; the endpoints are listed at /docs"
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"
        return _failure(error.status_code, "not_found" if error.status_code == 404 else "refused", message, headers)

    @app.exception_handler(ClientDisconnect)
    async def drop(_: Request, __: ClientDisconnect) -> Response:
        return _failure(400, "disconnected", "the client has gone")

    @app.exception_handler(Exception)
    async def apologize(_: Request, __: Exception) -> Response:
        return _failure(500, "internal", "a defect of the service; its log says more")


def _serve_file(name: str, media_type: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    content = (resources.files("gender_classifier") / "page" / name).read_bytes()

    async def serve() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return serve
