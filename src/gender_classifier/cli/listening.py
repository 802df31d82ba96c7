"""Run an ASGI application on a port of this machine; ``serve`` and ``review`` do."""

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from gender_classifier.common.logs import quiet_loggers
from gender_classifier.errors import ServiceError
from gender_classifier.serve.connections import GRACE_SECONDS, Connection, Server

_MAX_CONNECTIONS, _OTHER_FILES = 512, 128  # idle connections included; other open files, with a reserve


def run_app(app: Any, host: str, port: int, announce: Callable[[str, str], None], options: str) -> None:
    """Run ``app`` until a signal stops it.

    Args:
        app: an ASGI application.
        host: address or name to listen on.
        port: 0 for any free one.
        announce: called with the IP address and the URL as soon as connections are accepted.
        options: of the command that change the address, for the message.

    Raises:
        ServiceError: the address cannot be listened on.
    """
    # python_multipart logs every odd header of a multipart body, with which attackers could fill the log.
    with _bind(host, port, options) as listener, quiet_loggers("python_multipart"):
        host, port = listener.getsockname()[:2]
        announce(host, f"http://{f'[{host}]' if ':' in host else host}:{port}")
        # uvicorn shuts down gracefully and then raises the signal again, which is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # not used
            limit_concurrency=_count_connections(),
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        Server(config).run(sockets=[listener])


def _count_connections() -> int:
    """Return how many connections the limit on open files allows, after raising the limit if possible."""
    wanted = _MAX_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(_MAX_CONNECTIONS, soft - _OTHER_FILES))


def _bind(host: str, port: int, options: str) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # Python's text of a failed bind repeats the address; that of a host not found has the only reason.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ServiceError(f"{host}:{port}: cannot listen there ({reason}); change {options}") from None
