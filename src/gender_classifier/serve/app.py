"""The HTTP service: predictions, heat maps, a web page and Prometheus metrics.

Requests are never written to disk, and no path is taken from one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gender_classifier.data.formats.image_files import FORMATS
from gender_classifier.errors import ImageError
from gender_classifier.predict.explain import build_occlusions, compute_drops
from gender_classifier.predict.limits import MAX_PIXELS, THRESHOLD
from gender_classifier.predict.predictor import Answer, Predictor
from gender_classifier.serve.assets import serve_file
from gender_classifier.serve.batching import Batcher
from gender_classifier.serve.decoding import Decoders
from gender_classifier.serve.guard import Guard, Key
from gender_classifier.serve.middleware import Frame, Metrics, build_failure
from gender_classifier.serve.schema import (
    Explanation,
    Health,
    ModelInfo,
    Prediction,
    Unreadable,
    describe_body,
    describe_refusals,
    parse_calibration,
    parse_measured,
    parse_metrics,
)
from gender_classifier.serve.uploads import Capacity, RequestError, Upload, check_length, find_boundary, read_uploads

# Images per call of the model: larger batches are no faster per image and make other requests wait.
_MAX_BATCH = 32
# Images of a heat map per call, so that predictions get their turn in between.
_EXPLAIN_BATCH = 8
# Decoding processes; with more than there are cores, only memory grows.
_DECODERS = 2
# s until a whole body must have arrived.
_BODY_SECONDS = 60

_API = ("/predict", "/explain", "/model", "/health", "/metrics", "/openapi.json")
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/card": ("card.html", "text/html; charset=utf-8"),
    "/card.js": ("card.js", "text/javascript; charset=utf-8"),
    "/common.js": ("common.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}  # file and media type of each path


@dataclass(frozen=True)
class Settings:
    """Limits and access of the service."""

    max_bytes: int = 16 * 2**20
    """Bytes per request body."""
    max_images: int = 64
    """Images per request."""
    max_pixels: int = MAX_PIXELS
    """Pixels per image; two images are decoded at once."""
    max_requests: int = 64
    """Requests in progress whose body has arrived. Beyond this the service returns 503."""
    max_held_bodies: int = 8
    """Memory for bodies, in multiples of ``max_bytes``. Beyond this the service returns 503."""
    threshold: float = THRESHOLD
    """Predictions with a lower probability count as uncertain."""
    api_key: str | None = None
    """Required for predictions, heat maps and metrics, if given."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names accepted beside IP addresses and localhost, as `HostPattern` parses them."""
    registry_version: str | None = None
    """Version in MLflow's registry, if the model was loaded from there."""


def build_app(predictor: Predictor, settings: Settings) -> FastAPI:
    """Build the ASGI application."""
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
        redirect_slashes=False,  # a redirect would go to whatever host the request names
    )
    app.add_middleware(Guard, allowed_hosts=settings.allowed_hosts, metrics=metrics)
    app.add_middleware(Frame, metrics=metrics, paths={*PAGE, *_API})
    _add_error_answers(app, metrics)
    _add_api(app, service, settings)
    for path, (name, media_type) in PAGE.items():
        app.get(path, include_in_schema=False)(serve_file(name, media_type))
    return app


def _add_api(app: FastAPI, service: "_Service", settings: Settings) -> None:
    has_key = settings.api_key is not None
    # HTTPBearer only documents the scheme; `check_key` checks.
    bearer = HTTPBearer(scheme_name="key", auto_error=False)
    guarded: dict[str, Any] = {"dependencies": [Security(bearer), Depends(service.check_key)] if has_key else []}
    keyed = (401,) if has_key else ()
    upload_refusals = describe_refusals(400, 403, 408, 413, 415, 422, 503, *keyed)
    app.post(
        "/predict",
        summary="Classify one or many images",
        description="Answers are in the order of the images. Of several images, an unreadable one is answered with "
        "`error` in its place; a single one is refused with status 422.",
        responses=upload_refusals,
        response_model=list[Prediction | Unreadable],
        openapi_extra=describe_body("images", settings.max_images),
        **guarded,
    )(service.predict)
    app.post(
        "/explain",
        summary="Heat map of one image",
        description="Covers each part of the image in turn and reports by how much the probability falls (occlusion "
        "sensitivity). Costs as much as 65 predictions.",
        responses=upload_refusals,
        response_model=Explanation,
        openapi_extra=describe_body("image", None),
        **guarded,
    )(service.explain)
    app.get("/model", summary="The model: version, data, metrics, limits", response_model=ModelInfo)(service.model)
    app.get("/health", summary="Check that the service is up", response_model=Health)(service.health)
    app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **describe_refusals(*keyed)},
        **guarded,
    )(service.metrics)


class _Service:
    """The endpoints."""

    def __init__(self, predictor: Predictor, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._info = _describe_model(predictor, settings)
        self._classes = predictor.classes
        self._key = Key(settings.api_key) if settings.api_key is not None else None
        self._decoders = Decoders(
            _DECODERS,
            image_size=predictor.image_size,
            min_side=predictor.min_side,
            crop=predictor.crop,
            max_pixels=settings.max_pixels,
            max_bytes=settings.max_bytes,
        )
        self._batcher = Batcher(
            predictor.compute,
            ThreadPoolExecutor(1, "model"),
            max_batch=_MAX_BATCH,
            observe=metrics.batch_images.observe,
        )
        self._capacity = Capacity(settings.max_requests, settings.max_held_bodies * settings.max_bytes)

    async def predict(self, request: Request) -> Response:
        with self._capacity.hold_bytes() as hold:
            uploads = await self._receive(request, "images", self._settings.max_images, hold)
            with self._capacity.admit():
                images = await asyncio.gather(*map(self._prepare, uploads))
                if len(images) == 1 and isinstance(images[0], ImageError):
                    raise RequestError(422, images[0].reason, str(images[0]))
                readable = [image for image in images if not isinstance(image, ImageError)]
                answers = iter(await self._batcher.compute(np.stack(readable)) if readable else ())
        pairs = zip(uploads, images, strict=True)
        return JSONResponse([{"name": upload.name, **self._describe(image, answers)} for upload, image in pairs])

    async def explain(self, request: Request) -> Response:
        with self._capacity.hold_bytes() as hold:
            (upload,) = await self._receive(request, "image", 1, hold)
            with self._capacity.admit():
                image = await self._prepare(upload)
                if isinstance(image, ImageError):
                    raise RequestError(422, image.reason, str(image))
                copies = build_occlusions(image)
                starts = range(0, len(copies), _EXPLAIN_BATCH)
                # In sequence, so that predictions of other requests run in between.
                parts = [await self._batcher.compute(copies[start : start + _EXPLAIN_BATCH]) for start in starts]
        probs = np.stack([answer.probs for part in parts for answer in part])
        label = int(probs[0].argmax())
        grid = [[round(value, 5) for value in row] for row in compute_drops(probs, label).tolist()]
        name, prob = self._classes[label], _as_prob(probs[0, label])
        return JSONResponse({"name": upload.name, "label": name, "prob": prob, "grid": grid})

    async def model(self) -> Response:
        return JSONResponse(self._info)

    async def health(self) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(self) -> Response:
        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def run(self, _: FastAPI) -> AsyncIterator[None]:
        """End the decoding processes when the service stops."""
        try:
            yield
        finally:
            self._decoders.stop()

    async def check_key(self, request: Request) -> None:
        """Reject requests without the API key with 401."""
        assert self._key is not None
        if not self._key.is_sent_by(request):
            message = "send the service's API key as `Authorization: Bearer KEY`"
            raise RequestError(401, "no_key", message, {"WWW-Authenticate": "Bearer"})

    async def _receive(self, request: Request, name: str, max_images: int, hold: Callable[[int], None]) -> list[Upload]:
        """Read the files of a request; what the headers show to be wrong is refused before the body is read."""
        boundary = find_boundary(request.headers.get("content-type", ""))
        length = request.headers.get("content-length", "")[:20]
        max_bytes = self._settings.max_bytes
        check_length(int(length) if length.isdecimal() else 0, max_bytes)
        self._capacity.check_room()
        reading = read_uploads(
            request.stream(), boundary, name=name, max_images=max_images, max_bytes=max_bytes, hold=hold
        )
        try:
            return await asyncio.wait_for(reading, _BODY_SECONDS)
        except TimeoutError:
            raise RequestError(408, "slow", f"the request took more than {_BODY_SECONDS} s to arrive") from None

    async def _prepare(self, upload: Upload) -> NDArray[np.uint8] | ImageError:
        try:
            image = await asyncio.wrap_future(self._decoders.submit(upload.data))
        except ImageError as error:
            return error
        self._metrics.images.inc()
        return image

    def _describe(self, image: NDArray[np.uint8] | ImageError, answers: Iterator[Answer]) -> dict[str, object]:
        """Return the answer for one image; that of a readable one takes the next of ``answers``."""
        if isinstance(image, ImageError):
            self._metrics.errors.labels(image.reason).inc()
            return {"error": {"reason": image.reason, "message": str(image)}}
        probs, unfamiliar = next(answers)
        label = int(probs.argmax())
        prob = _as_prob(probs[label])
        return {
            "label": self._classes[label],
            "prob": prob,
            "uncertain": prob < self._settings.threshold,
            "unfamiliar": unfamiliar,
            "probs": {name: _as_prob(value) for name, value in zip(self._classes, probs, strict=True)},
        }


def _describe_model(predictor: Predictor, settings: Settings) -> dict[str, object]:
    """Return the answer of ``GET /model``; entries that the model file lacks are null or empty."""
    metadata = predictor.metadata
    return {
        "version": metadata.get("version"),
        "registry_version": settings.registry_version,
        "data_digest": metadata.get("data_digest"),
        "network": metadata.get("network"),
        "classes": list(predictor.classes),
        "image_size": predictor.image_size,
        "metrics": parse_metrics(metadata.get("metrics", "{}")),
        "measured": parse_measured(metadata.get("measured", "[]")),
        "calibration": parse_calibration(metadata.get("calibration")),
        "limits": metadata.get("limits", ""),
        "threshold": settings.threshold,
        "needs_key": settings.api_key is not None,
        "accepts": {
            "max_bytes": settings.max_bytes,
            "max_images": settings.max_images,
            "max_pixels": settings.max_pixels,
            "min_side": predictor.min_side,
            "crop": predictor.crop._asdict() if predictor.crop else None,
            "formats": list(FORMATS),
        },
    }


def _as_prob(value: np.float32) -> float:
    return round(min(max(float(value), 0.0), 1.0), 6)


def _add_error_answers(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        metrics.errors.labels(error.reason).inc()
        return build_failure(error.status, error.reason, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.scope['path'][:100]}: {error.detail}; the endpoints are listed at /docs"
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"
        reason = "not_found" if error.status_code == 404 else "refused"
        return build_failure(error.status_code, reason, message, headers)

    @app.exception_handler(ClientDisconnect)
    async def drop(_: Request, __: ClientDisconnect) -> Response:
        return build_failure(400, "disconnected", "the client has disconnected")
