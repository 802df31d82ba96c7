"""HTTP as the service speaks it: uvicorn's h11 protocol, with limits on connections and on a request's head.

h11 bounds what it buffers of a head, a chunk's header or trailers (``h11_max_incomplete_event_size``). This adds a
deadline for the head, a limit of connections under which the silent ones make room, and refusals as JSON.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gender_classifier.serve.answers import SECURITY_HEADERS, encode_failure

MAX_HEAD_BYTES = 32 * 1024
"""Of request line and headers together, of a chunk's header, and of trailers. A larger one that arrives at once, within
one read of the socket (256 KiB), may still pass."""

HEAD_SECONDS = 10.0
"""A connection that has not sent a whole head by then is closed."""

MAX_CONNECTIONS = 512
"""One more closes the one that has been silent for longest, or is refused if all have a request under way."""


class GuardedProtocol(H11Protocol):
    """One connection of a client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Start without a client."""
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._waits_since = time.monotonic()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is under way: no whole head has come since the connection was made, or since the last."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a client; make room for it where there are too many."""
        super().connection_made(transport)
        self._start_head_timer()
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [one for one in self.connections if isinstance(one, GuardedProtocol) and one.is_waiting]
            # Of two that wait, the one that has waited longer goes; the newest is this one.
            oldest = min(waiting, key=lambda one: one._waits_since)
            if oldest is self:
                self._refuse(503, "busy", "too many connections; try again", (("retry-after", "1"),))
            else:
                oldest.transport.abort()  # connection_lost comes later; until then it would be counted
                self.connections.discard(oldest)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the time for a head runs until it is whole."""
        if self.transport.is_closing():
            return
        if self.is_waiting and self._head_timer is None:
            self._start_head_timer()
        super().data_received(data)
        if not self.is_waiting:
            self._stop_head_timer()

    def on_response_complete(self) -> None:
        """Wait for the next request on this connection."""
        self._waits_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request: as JSON, with the headers of every answer."""
        if len(self.conn.trailing_data[0]) > MAX_HEAD_BYTES:
            self._refuse(431, "head_too_large", f"more than {MAX_HEAD_BYTES} bytes of headers")
        else:
            self._refuse(400, "malformed", "not a valid HTTP/1.1 request")

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.is_waiting and not self.transport.is_closing():
            self._refuse(408, "slow", f"no whole request within {HEAD_SECONDS:.0f} s")

    def _refuse(self, status: int, reason: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        body = encode_failure(reason, message)
        lines = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        fields = [*lines, *headers, *SECURITY_HEADERS.items()]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            event = h11.Response(
                status_code=status, headers=[(name.encode(), value.encode()) for name, value in fields]
            )
            parts = [self.conn.send(event), self.conn.send(h11.Data(data=body)), self.conn.send(h11.EndOfMessage())]
            self.transport.write(b"".join(part for part in parts if part))
        self.transport.close()
