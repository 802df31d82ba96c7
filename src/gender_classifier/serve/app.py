"""The model over HTTP: predictions, heat maps, a page for people, figures for Prometheus.

Nothing of a request is written to disk, and no path is taken from one.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from gender_classifier.errors import ImageError
from gender_classifier.predict.explain import build_occlusions, compute_drops
from gender_classifier.predict.predictor import Predictor
from gender_classifier.serve.answers import add_error_answers
from gender_classifier.serve.batching import Batcher
from gender_classifier.serve.decoding import Decoders
from gender_classifier.serve.guard import Guard
from gender_classifier.serve.middleware import Frame, Metrics
from gender_classifier.serve.model_info import describe_model
from gender_classifier.serve.openapi import declare_key, describe_body, describe_refusals, describe_security
from gender_classifier.serve.schema import Explanation, Health, ModelInfo, Prediction, Unreadable
from gender_classifier.serve.settings import Settings
from gender_classifier.serve.uploads import (
    Capacity,
    RequestError,
    Upload,
    check_length,
    check_multipart,
    discard,
    read_uploads,
)

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
# s that the rest of a refused body may take; the connection is then closed, and the client may not see the answer.
_DISCARD_SECONDS = 5

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


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
        redirect_slashes=False,  # a redirect would name whatever host the request does
        lifespan=service.run,
    )
    app.add_middleware(Guard, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(Frame, metrics=metrics, paths={*_PAGE, *_API})
    add_error_answers(app, lambda reason: metrics.errors.labels(reason).inc())
    _add_api(app, service)
    for path, (name, media_type) in _PAGE.items():
        app.add_api_route(path, _serve_file(name, media_type), include_in_schema=False)
    return app


_API = ("/predict", "/explain", "/model", "/health", "/metrics", "/openapi.json")


def _add_api(app: FastAPI, service: _Service) -> None:
    settings, has_key = service.settings, service.settings.api_key is not None

    @app.post(
        "/predict",
        summary="Classify one or many pictures",
        description="The answers are in the order of the pictures. Of several, one that cannot be read is answered "
        "with `error` in its place; a single one is refused with status 422.",
        responses=describe_refusals(has_key, 400, 403, 408, 413, 415, 422, 503),
        response_model=list[Prediction | Unreadable],
        openapi_extra=describe_body("images", settings.max_images) | describe_security(has_key),
    )
    async def predict(request: Request) -> Response:
        return await service.predict(request)

    @app.post(
        "/explain",
        summary="Heat map of one picture",
        description="Covers each part of the picture in turn and says how far the probability falls (occlusion "
        "sensitivity). Costs as much as 65 predictions.",
        responses=describe_refusals(has_key, 400, 403, 408, 413, 415, 422, 503),
        response_model=Explanation,
        openapi_extra=describe_body("image", None) | describe_security(has_key),
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
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **describe_refusals(has_key)},
        openapi_extra=describe_security(has_key),
    )
    async def metrics(request: Request) -> Response:
        service.check_key(request)
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    if has_key:
        declare_key(app)


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
        async with self._receiving(request) as chunks:
            with self._capacity.admit() as hold:
                uploads = await self._read(request, chunks, "images", self.settings.max_images, hold)
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
        async with self._receiving(request) as chunks:
            with self._capacity.admit() as hold:
                (upload,) = await self._read(request, chunks, "image", 1, hold)
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

    @asynccontextmanager
    async def _receiving(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        """Check all that the head says, then give the body; drain it if the request is refused.

        Whoever is refused by the head, or sends what nobody reads, holds no place among the admitted requests.
        """
        chunks = request.stream()
        try:
            self.check_key(request)
            check_multipart(request.headers.get("content-type", ""))
            length = request.headers.get("content-length", "")
            check_length(int(length) if length.isdecimal() else 0, self.settings.max_bytes)
            yield chunks
        except RequestError:
            if "expect" not in request.headers:  # such a client waits for the answer before it sends
                await _discard_rest(chunks, _DISCARDED * self.settings.max_bytes)
            raise

    async def _read(
        self, request: Request, chunks: AsyncIterator[bytes], name: str, max_images: int, hold: Callable[[int], None]
    ) -> list[Upload]:
        try:
            return await asyncio.wait_for(
                read_uploads(
                    chunks,
                    request.headers.get("content-type", ""),
                    name=name,
                    max_images=max_images,
                    max_bytes=self.settings.max_bytes,
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


def _as_prob(value: np.float32) -> float:
    return round(min(max(float(value), 0.0), 1.0), 6)


def _refuse_image(error: NDArray[np.uint8] | ImageError) -> RequestError:
    assert isinstance(error, ImageError)
    return RequestError(422, error.reason, str(error))


async def _discard_rest(chunks: AsyncIterator[bytes], max_bytes: int) -> None:
    with suppress(asyncio.TimeoutError, ClientDisconnect):
        await asyncio.wait_for(discard(chunks, max_bytes), _DISCARD_SECONDS)


def _serve_file(name: str, media_type: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    content = (resources.files("gender_classifier.serve") / "page" / name).read_bytes()

    async def serve() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return serve
