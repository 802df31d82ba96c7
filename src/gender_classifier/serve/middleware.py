"""What is around every answer of the service: HEAD, security headers, and figures for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gender_classifier.serve.answers import SECURITY_HEADERS


class Metrics:
    """What Prometheus reads; of one application, not of the process."""

    def __init__(self) -> None:
        """Count from zero."""
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
        self.images = Counter("gender_classifier_images", "Pictures decoded", registry=self._registry)
        self.batch_images = Histogram(
            "gender_classifier_batch_images",
            "Pictures in one call of the model",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.errors = Counter(
            "gender_classifier_errors", "Pictures and requests refused", ["reason"], registry=self._registry
        )

    def render(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        return generate_latest(self._registry)


class Frame:
    """ASGI middleware: HEAD wherever GET works, security headers, and time and status for Prometheus."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        """Wrap ``app``; requests are counted by path, those outside ``paths`` together as ``other``."""
        self._app, self._metrics, self._paths = app, metrics, paths
        self._headers = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; HEAD as GET, without the body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        began = time.perf_counter()
        status = 500

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers]
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_framed)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)
