"""Middleware of all endpoints: HEAD, security headers, errors and Prometheus metrics."""

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gender_classifier.common.terminal import printable

_SECURITY = {
    # blob: allows the page's previews of images that are not uploaded yet.
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "object-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SECURITY_HEADERS = [(name.encode(), value.encode()) for name, value in _SECURITY.items()]
"""Headers of every answer."""


class Refusal(NamedTuple):
    """Status, one word for programs and one line for people."""

    status: int
    reason: str
    message: str


def build_failure(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Build a refusal; quotes of the request in ``message`` are made printable."""
    return JSONResponse({"error": {"reason": reason, "message": printable(message)}}, status, headers)


class Metrics:
    """Prometheus metrics of one application."""

    def __init__(self) -> None:
        """Create the metrics in a new registry."""
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "gender_classifier_requests", "Requests answered", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "gender_classifier_request_seconds",
            "Time from a request's headers to the end of its answer",
            ["path"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self._registry,
        )
        self.images = Counter("gender_classifier_images", "Images decoded", registry=self._registry)
        self.batch_images = Histogram(
            "gender_classifier_batch_images",
            "Images in one call of the model",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.errors = Counter(
            "gender_classifier_errors", "Images and requests refused", ["reason"], registry=self._registry
        )

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class Frame:
    """ASGI middleware for HEAD requests, security headers, unexpected errors, and time and status for Prometheus."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        """Wrap ``app``; requests to paths outside ``paths`` are counted as ``other``."""
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; HEAD like GET without the body, and an unexpected error with 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        expects = any(name == b"expect" for name, _ in scope["headers"])
        began = time.perf_counter()
        status, has_begun = 500, False

        async def send_framed(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
                if expects and status >= 400:
                    # A refused client does not send the body; its next request would be read as the body.
                    message["headers"].append((b"connection", b"close"))
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_framed)
        except asyncio.CancelledError:  # the server stops and the request takes too long
            if not has_begun:
                failure = build_failure(503, "stopping", "the service is shutting down; try again later")
                await failure(scope, receive, send_framed)
        except Exception:
            if not has_begun:
                failure = build_failure(500, "internal", "internal error; see the service's log")
                await failure(scope, receive, send_framed)
            raise
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)
