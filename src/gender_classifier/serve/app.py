"""The model over HTTP: predictions, heat maps, a page for people, figures for Prometheus.

Nothing of a request is written to disk, and no path is taken from one.
"""

import asyncio
import hashlib
import hmac
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gender_classifier.data.formats.image_files import FORMATS
from gender_classifier.errors import ImageError
from gender_classifier.predict.explain import build_occlusions, compute_drops
from gender_classifier.predict.limits import MAX_PIXELS, THRESHOLD
from gender_classifier.predict.predictor import Predictor
from gender_classifier.serve.batching import Batcher
from gender_classifier.serve.decoding import Decoders
from gender_classifier.serve.guard import Guard
from gender_classifier.serve.middleware import Frame, Metrics, build_failure
from gender_classifier.serve.pages import PAGE, add_page
from gender_classifier.serve.schema import (
    Explanation,
    Health,
    ModelInfo,
    Prediction,
    Unreadable,
    declare_key,
    describe_body,
    describe_refusals,
    describe_security,
)
from gender_classifier.serve.uploads import Capacity, RequestError, Upload, check_length, find_boundary, read_uploads

# Of one call of the model: beyond it, more images at once are no quicker each, and others wait longer.
_MAX_BATCH = 32
# A heat map's copies go in pieces, so that predictions get their turn between them.
_EXPLAIN_BATCH = 8
# Processes; more than cores would only hold more images in memory.
_DECODERS = 2
# s; a body that takes longer is refused.
_BODY_SECONDS = 60


@dataclass(frozen=True)
class Settings:
    """What the service takes, and from whom."""

    max_bytes: int = 16 * 2**20
    """Of one request's body."""
    max_images: int = 64
    """Of one request."""
    max_pixels: int = MAX_PIXELS
    """Of one image; two are decoded at once."""
    max_requests: int = 64
    """Requests whose body has arrived and that are not answered. Beyond this the service returns 503."""
    max_held_bodies: int = 8
    """Bodies of ``max_bytes`` that are held at once; smaller ones are more."""
    threshold: float = THRESHOLD
    """A lower probability counts as uncertain."""
    api_key: str | None = None
    """What predictions, heat maps and metrics ask for."""
    allowed_hosts: tuple[str, ...] = ()
    """Names the service answers to beside IP addresses and localhost; `service_guard.HostPattern` reads them."""
    registry_version: str | None = None
    """Of the model, if it came from MLflow's registry."""


def build_app(predictor: Predictor, settings: Settings) -> FastAPI:
    """Return the service as an ASGI application."""
    metrics = Metrics()
    service = _Service(predictor, settings, metrics)

    app = FastAPI(
        title="gender-classifier",
        version=predictor.metadata.get("version", "unknown"),
        description=f"Classifies tight face crops as {' or '.join(f'`{name}`' for name in predictor.classes)}. "
        "Labels are not what gender is: see `GET /model`.",
        docs_url=None,
        redoc_url=None,
        lifespan=service.run,
        redirect_slashes=False,  # the redirect would go to whatever host the request names
    )
    app.add_middleware(Guard, allowed_hosts=settings.allowed_hosts, metrics=metrics)
    app.add_middleware(Frame, metrics=metrics, paths={*PAGE, *_API})
    _add_error_answers(app, metrics)
    _add_api(app, service)
    add_page(app)
    return app


_API = ("/predict", "/explain", "/model", "/health", "/metrics", "/openapi.json")


def _add_api(app: FastAPI, service: "_Service") -> None:
    settings = service.settings
    needs_key = settings.api_key is not None

    @app.post(
        "/predict",
        summary="Classify one or many images",
        description="The answers are in the order of the images. Of several, one that cannot be read is answered "
        "with `error` in its place; a single one is refused with status 422.",
        responses=describe_refusals(needs_key, 400, 403, 408, 413, 415, 422, 503),
        response_model=list[Prediction | Unreadable],
        openapi_extra=describe_body("images", settings.max_images) | describe_security(needs_key),
    )
    async def predict(request: Request) -> Response:
        return await service.predict(request)

    @app.post(
        "/explain",
        summary="Heat map of one image",
        description="Covers each part of the image in turn and says how far the probability falls (occlusion "
        "sensitivity). Costs as much as 65 predictions.",
        responses=describe_refusals(needs_key, 400, 403, 408, 413, 415, 422, 503),
        response_model=Explanation,
        openapi_extra=describe_body("image", None) | describe_security(needs_key),
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
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **describe_refusals(needs_key)},
        openapi_extra=describe_security(needs_key),
    )
    async def metrics(request: Request) -> Response:
        service.check_key(request)
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    if needs_key:
        declare_key(app)


class _Service:
    """The endpoints' work."""

    def __init__(self, predictor: Predictor, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.info = describe_model(predictor, settings)
        self._classes = predictor.classes
        self._key_digest = _digest(settings.api_key.encode()) if settings.api_key is not None else None
        self._decoders = Decoders(
            _DECODERS,
            image_size=predictor.image_size,
            min_side=predictor.min_side,
            max_pixels=settings.max_pixels,
            max_bytes=settings.max_bytes,
        )
        self._model = ThreadPoolExecutor(1, "model")
        self._batcher = Batcher(
            predictor.compute_probs, self._model, max_batch=_MAX_BATCH, observe=metrics.batch_images.observe
        )
        self._capacity = Capacity(settings.max_requests, settings.max_held_bodies * settings.max_bytes)

    async def predict(self, request: Request) -> Response:
        with self._capacity.hold_bytes() as hold:
            uploads = await self._receive(request, "images", self.settings.max_images, hold)
            with self._capacity.admit():
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
        with self._capacity.hold_bytes() as hold:
            (upload,) = await self._receive(request, "image", 1, hold)
            with self._capacity.admit():
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
        if self._key_digest is None:
            return
        values = request.headers.getlist("authorization")
        scheme, _, key = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        # Digests, so that the time of the comparison says nothing of the key, its length included.
        is_right = hmac.compare_digest(_digest(key.strip(" \t").encode("latin-1")), self._key_digest)
        if scheme.lower() != "bearer" or not is_right:
            raise RequestError(
                401,
                "no_key",
                "send the service's API key as `Authorization: Bearer KEY`",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _receive(self, request: Request, name: str, max_images: int, hold: Callable[[int], None]) -> list[Upload]:
        """Read the files of a request. What its head tells is refused before any of the body is read."""
        settings = self.settings
        self.check_key(request)
        boundary = find_boundary(request.headers.get("content-type", ""))
        length = request.headers.get("content-length", "")[:20]
        check_length(int(length) if length.isdecimal() else 0, settings.max_bytes)
        self._capacity.check_room()
        try:
            return await asyncio.wait_for(
                read_uploads(
                    request.stream(),
                    boundary,
                    name=name,
                    max_images=max_images,
                    max_bytes=settings.max_bytes,
                    hold=hold,
                ),
                _BODY_SECONDS,
            )
        except TimeoutError:
            raise RequestError(408, "slow", f"the request took more than {_BODY_SECONDS} s to arrive") from None

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
            "min_side": predictor.min_side,
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


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _as_prob(value: np.float32) -> float:
    return round(min(max(float(value), 0.0), 1.0), 6)


def _refuse_image(error: NDArray[np.uint8] | ImageError) -> RequestError:
    assert isinstance(error, ImageError)
    return RequestError(422, error.reason, str(error))


def _add_error_answers(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> Response:
        metrics.errors.labels(error.reason).inc()
        # A client that asked whether to send its body does not send it now; the next request would be taken for it.
        close = {"Connection": "close"} if "expect" in request.headers else {}
        return build_failure(error.status, error.reason, str(error), error.headers | close)

    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.scope['path'][:100]}: {error.detail}; the endpoints are listed at /docs"
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"
        return build_failure(
            error.status_code, "not_found" if error.status_code == 404 else "refused", message, headers
        )

    @app.exception_handler(ClientDisconnect)
    async def drop(_: Request, __: ClientDisconnect) -> Response:
        return build_failure(400, "disconnected", "the client has gone")
