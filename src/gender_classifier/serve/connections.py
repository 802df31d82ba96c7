"""Connections of the service: limits that uvicorn lacks, on request heads, framing, time and number.

uvicorn's protocol on httptools, with every refusal in the service's own form. A refused connection is read a little
longer, so that a client that is still sending gets to read the answer.
"""

import json
import os
import threading
from asyncio import AbstractEventLoop, BaseTransport
from dataclasses import dataclass
from http import HTTPStatus
from socket import socket
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gender_classifier.serve.middleware import SECURITY_HEADERS

# Bytes of a request's target and headers. Browsers send 1 to 8 kB, proxies refuse more than 8 to 32 KiB.
_MAX_HEAD = 32 * 1024
# Bytes of chunk sizes, chunk extensions and trailers that each byte of a body pays for; beyond them, `_MAX_HEAD`.
_FRAMING_PER_BYTE = 8
# Requests sent before the first is answered; no browser does it.
_MAX_PIPELINED = 16
# Bytes of a body that are read and dropped after its request was refused.
_MAX_DISCARDED = 64 * 2**20
# s from the connection, or from the last answer, to a whole head (and to the end of a refused body).
_HEAD_SECONDS = 10
# s that an answer may lie unread.
_UNREAD_SECONDS = 30
# s that a refused connection is still read.
_LINGER_SECONDS = 2
# Ticks of uvicorn, 0.1 s each, between two looks at all connections.
_TICKS = 5
# s that requests have to end after SIGTERM, and that the process has; together within the 10 s that are promised.
GRACE_SECONDS, _STOP_SECONDS = 8, 9.5


@dataclass(frozen=True)
class _Refusal:
    """Why a connection is refused."""

    status: int
    reason: str
    message: str

    def render(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        body = json.dumps({"error": {"reason": self.reason, "message": self.message}}).encode()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode(),
            *(name + b": " + value for name, value in (*headers, *SECURITY_HEADERS)),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


class _RefusedError(Exception):
    """Carries a refusal out of the parser's callbacks."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


_MALFORMED = _Refusal(400, "malformed", "this is not a valid HTTP/1.1 request")
_PIPELINED = _Refusal(400, "malformed", f"more than {_MAX_PIPELINED} requests before an answer; wait for answers")
_FRAMING = _Refusal(400, "malformed", "the body has more chunk headers and trailers than content; send larger chunks")
_LARGE_HEAD = _Refusal(431, "head_too_large", f"the headers are larger than {_MAX_HEAD} bytes; send fewer of them")
_SLOW_HEAD = _Refusal(408, "slow", f"the headers took more than {_HEAD_SECONDS} s to arrive")
_FULL = _Refusal(503, "busy", "too many requests are open on other connections; try again in a second")


class Connection(HttpToolsProtocol):
    """One connection. ``limit_concurrency`` of uvicorn's configuration is the number of open ones."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        """Begin without a request; see uvicorn for the arguments."""
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn counts silent connections against everybody, and refuses in plain text.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._since = self.loop.time()  # when the wait for the next head began
        self._unread_since: float | None = None
        self._in_head = self._in_body = self._is_refused = False
        self._head = self._framing = self._discarded = 0  # bytes
        self._open: list[RequestResponseCycle] = []  # requests with a whole head that are not answered

    def connection_made(self, transport: BaseTransport) -> None:
        """Take the connection; where there are too many, the one that has waited longest for its client goes."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._max_connections is None or len(self.connections) <= self._max_connections:
            return
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        idle = [one for one in others if one._urgency is not None]
        if not idle:
            self._refuse(_FULL)
            return
        victim = min(idle, key=lambda one: (one._urgency or 0, one._since))
        self.connections.discard(victim)
        victim.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way; uvicorn itself remembers only the request that came last."""
        self._drop_answers()
        super().connection_lost(exc)

    @property
    def _urgency(self) -> int | None:
        """How soon this connection may be closed for another, 0 first; None while a request is worked on."""
        if self._is_refused:
            return 0
        if not self._open:
            return 1 if self.cycle is None or self._in_head or self._in_body else 2
        return 3 if len(self._open) == 1 and self._in_body else None

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, within the limits. Refusals are not logged: strangers would fill the log."""
        if self._is_refused:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # to a protocol that is not spoken here: answered as if it had not been asked
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.refusal if isinstance(cause, _RefusedError) else _MALFORMED)
            return
        if self._framing > _MAX_HEAD:
            self._refuse(_LARGE_HEAD if self._in_head else _FRAMING if self._in_body else _MALFORMED)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head, self._head, self._discarded = True, 0, 0

    def on_url(self, url: bytes) -> None:
        """Add a part of the target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers are dropped, since the application has seen the headers by then."""
        if self._in_head:
            self._count_head(len(name) + len(value) + 4)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise _RefusedError(_PIPELINED)
        if not self.url.startswith((b"/", b"*")):
            self._take_host_from_target()
        super().on_headers_complete()
        self._in_head, self._in_body, self._framing = False, True, 0
        self._open.append(self.cycle)
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows is parsed no more

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, or drop it where the answer has been given."""
        self._framing = max(0, self._framing - (1 + _FRAMING_PER_BYTE) * len(body))
        if self.cycle.response_complete:
            self._discard(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        super().on_message_complete()
        self._in_body, self._framing = False, 0

    def on_response_complete(self) -> None:
        """Wait for the next request, or close where the client has sent nonsense after this one."""
        self._open.pop(0)
        self._since = self.loop.time()
        super().on_response_complete()
        if self._is_refused:
            self.transport.close()

    def shutdown(self) -> None:
        """Close, now or after the answer that is being made."""
        if self._is_refused and not self._open:
            self.transport.abort()
        else:
            super().shutdown()

    def check_time(self, now: float) -> None:
        """Close what is silent, slow to send a head, or does not read its answer. ``now``: s of the loop's clock."""
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
        """Make the application stop reading, and its answers go nowhere."""
        for cycle in self._open:
            cycle.disconnected = True
            cycle.message_event.set()
        self._open.clear()

    def _count_head(self, count: int) -> None:
        self._head += count
        if self._head > _MAX_HEAD:
            raise _RefusedError(_LARGE_HEAD)

    def _take_host_from_target(self) -> None:
        """Replace Host by the host of a target in absolute form, as RFC 9112, section 3.2.2, demands."""
        authority = self.url.partition(b"://")[2].partition(b"/")[0]
        self.headers[:] = [*(one for one in self.headers if one[0] != b"host"), (b"host", authority)]

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > _MAX_DISCARDED:
            self.transport.abort()

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer with ``refusal`` unless it would be taken for the answer to another request; then close."""
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
        self.transport.write(refusal.render(self.server_state.default_headers))
        self.transport.write_eof()


class Server(uvicorn.Server):
    """uvicorn's server, which looks after its connections and ends in time."""

    async def on_tick(self, counter: int) -> bool:
        """Look at all connections twice a second; True once the server is to end."""
        if counter % _TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check_time(connection.loop.time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End in good order; at once if that takes too long, whatever still runs."""
        # Python waits for its threads at exit, however long they work.
        timer = threading.Timer(_STOP_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()
        await super().shutdown(sockets)
