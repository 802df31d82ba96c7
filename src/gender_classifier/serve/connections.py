"""Connection limits that uvicorn lacks: size of heads and framing, timeouts, number of connections.

uvicorn's httptools protocol, with refusals in the service's format. A refused connection is read a little longer, so
that a client that is still sending gets to read the answer.
"""

import os
import threading
from asyncio import AbstractEventLoop, BaseTransport
from socket import socket
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gender_classifier.serve.middleware import SECURITY_HEADERS, Refusal, build_failure

# Bytes of a request's target and headers. Browsers send 1 to 8 kB, proxies reject more than 8 to 32 KiB.
_MAX_HEAD = 32 * 1024
# Bytes of chunk sizes, extensions and trailers allowed per byte of the body, in addition to `_MAX_HEAD`.
_FRAMING_PER_BYTE = 8
# Requests sent before the first is answered; browsers do not pipeline.
_MAX_PIPELINED = 16
# Bytes of a body that are drained after its request was refused.
_MAX_DISCARDED = 64 * 2**20
# s from the connection or the last answer to a complete head, or to the end of a refused body.
_HEAD_SECONDS = 10
# s until the client must read its answer.
_UNREAD_SECONDS = 30
# s for which a refused connection is still read.
_LINGER_SECONDS = 2
# uvicorn's ticks, 0.1 s each, between two checks of all connections.
_TICKS = 5
# s after SIGTERM until requests, and the process, must end: within the documented 10 s.
GRACE_SECONDS, _STOP_SECONDS = 8, 9.5


class _RefusedError(Exception):
    """Carries a refusal, its only argument, out of the parser's callbacks."""


_MALFORMED = Refusal(400, "malformed", "this is not a valid HTTP/1.1 request")
_PIPELINED = Refusal(400, "malformed", f"more than {_MAX_PIPELINED} requests before an answer; wait for answers")
_FRAMING = Refusal(400, "malformed", "the body has more chunk headers and trailers than content; send larger chunks")
_LARGE_HEAD = Refusal(431, "head_too_large", f"the headers are larger than {_MAX_HEAD} bytes; send fewer of them")
_SLOW_HEAD = Refusal(408, "slow", f"the headers took more than {_HEAD_SECONDS} s to arrive")
_FULL = Refusal(503, "busy", "too many requests are open on other connections; try again in a second")


class Connection(HttpToolsProtocol):
    """A connection. ``limit_concurrency`` in uvicorn's configuration limits the number of open connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        """Create a connection; see uvicorn for the arguments."""
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn would count idle connections too, and refuse in plain text.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._since = self.loop.time()  # start of the wait for the next head
        self._unread_since: float | None = None
        self._in_head = self._in_body = self._is_refused = False
        self._head = self._framing = self._discarded = 0  # bytes
        self._open: list[RequestResponseCycle] = []  # requests with a complete head and no answer yet

    def connection_made(self, transport: BaseTransport) -> None:
        """Accept the connection; if there are too many, close the one that has waited longest for its client."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._max_connections is None or len(self.connections) <= self._max_connections:
            return
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        idle = [other for other in others if other._urgency is not None]
        if not idle:
            self._refuse(_FULL)
            return
        victim = min(idle, key=lambda other: (other._urgency or 0, other._since))
        self.connections.discard(victim)
        victim.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all open requests; uvicorn itself only keeps the last one."""
        self._drop_answers()
        super().connection_lost(exc)

    @property
    def _urgency(self) -> int | None:
        """Order in which connections are closed to make room, 0 first; None while a request is being processed."""
        if self._is_refused:
            return 0
        if not self._open:
            return 1 if self.cycle is None or self._in_head or self._in_body else 2
        return 3 if len(self._open) == 1 and self._in_body else None

    def data_received(self, data: bytes) -> None:
        """Parse data within the limits. Refusals are not logged, since attackers could fill the log."""
        if self._is_refused:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # no other protocol is supported, so the request is answered as if it had not asked for one
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.args[0] if isinstance(cause, _RefusedError) else _MALFORMED)
            return
        if self._framing > _MAX_HEAD:
            self._refuse(_LARGE_HEAD if self._in_head else _FRAMING if self._in_body else _MALFORMED)

    def on_message_begin(self) -> None:
        """Start a request's head."""
        super().on_message_begin()
        self._in_head, self._head, self._discarded = True, 0, 0

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers are dropped, since the application already has the headers."""
        if self._in_head:
            self._count_head(len(name) + len(value) + 4)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request to the application."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise _RefusedError(_PIPELINED)
        if not self.url.startswith((b"/", b"*")):
            self._take_host_from_target()
        super().on_headers_complete()
        self._in_head, self._in_body, self._framing = False, True, 0
        self._open.append(self.cycle)
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows is not parsed

    def on_body(self, body: bytes) -> None:
        """Add a part of the body, or drop it if the request has been answered."""
        self._framing = max(0, self._framing - (1 + _FRAMING_PER_BYTE) * len(body))
        if self.cycle.response_complete:
            self._discard(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Finish a request's body."""
        super().on_message_complete()
        self._in_body, self._framing = False, 0

    def on_response_complete(self) -> None:
        """Wait for the next request, or close if the data after this one were refused."""
        self._open.pop(0)
        self._since = self.loop.time()
        super().on_response_complete()
        if self._is_refused:
            self.transport.close()

    def shutdown(self) -> None:
        """Close now, or after the current answer."""
        if self._is_refused and not self._open:
            self.transport.abort()
        else:
            super().shutdown()

    def check_time(self, now: float) -> None:
        """Close an idle, slow or unread connection; ``now`` is the loop's time in s."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > _UNREAD_SECONDS:
            self.transport.abort()
            return
        if self._open or self.transport.is_closing():
            return
        if self._is_refused and now - self._since > _LINGER_SECONDS:
            self.transport.abort()
        elif not self._is_refused and now - self._since > _HEAD_SECONDS:
            if self._in_head:
                self._refuse(_SLOW_HEAD)
            else:
                self.transport.close()

    def _drop_answers(self) -> None:
        """Make the application stop reading, and discard its answers."""
        for cycle in self._open:
            cycle.disconnected = True
            cycle.message_event.set()
        self._open.clear()

    def _count_head(self, count: int) -> None:
        self._head += count
        if self._head > _MAX_HEAD:
            raise _RefusedError(_LARGE_HEAD)

    def _take_host_from_target(self) -> None:
        """Replace Host by the host of a target in absolute form (RFC 9112, section 3.2.2)."""
        authority = self.url.partition(b"://")[2].partition(b"/")[0]
        self.headers[:] = [*(header for header in self.headers if header[0] != b"host"), (b"host", authority)]

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > _MAX_DISCARDED:
            self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with ``refusal``, unless it would be read as the answer to another request; then close."""
        if self.transport.is_closing():
            return
        self._is_refused, self._since, self._discarded = True, self.loop.time(), 0
        self.pipeline.clear()
        del self._open[1:]
        if self._in_body and self._open == [self.cycle] and not self.cycle.response_started:
            self._drop_answers()
        elif self._open:
            return  # `on_response_complete` closes
        elif self._in_body:
            self.transport.close()
            return
        response = build_failure(*refusal)
        headers = [*self.server_state.default_headers, *SECURITY_HEADERS, *response.raw_headers]
        lines = [b"%b: %b\r\n" % header for header in (*headers, (b"connection", b"close"))]
        self.transport.write(STATUS_LINE[refusal.status] + b"".join(lines) + b"\r\n" + bytes(response.body))
        self.transport.write_eof()


class Server(uvicorn.Server):
    """uvicorn's server with timeouts of connections and a bounded shutdown."""

    async def on_tick(self, counter: int) -> bool:
        """Check all connections twice a second; return True if the server should stop."""
        if counter % _TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check_time(connection.loop.time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Shut down gracefully, or by force if that takes too long."""
        # At exit, Python would wait for its threads however long they run.
        timer = threading.Timer(_STOP_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()
        await super().shutdown(sockets)
