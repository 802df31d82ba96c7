"""``gender-classifier serve``: the service as a process."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from gender_classifier.cli.options import add_model_option, add_threshold_option
from gender_classifier.common.threads import count_cores
from gender_classifier.errors import ServiceError
from gender_classifier.track.model_source import find_model

_logger = logging.getLogger(__name__)

KEY_VARIABLE = "GENDER_CLASSIFIER_API_KEY"

# s that requests have to end after SIGTERM; two more are left to end the processes, of the ten that are promised.
_GRACE_SECONDS = 8


def add_serve_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``serve`` to the command line."""
    serve = commands.add_parser(
        "serve",
        help="answer over HTTP: an API, a page, metrics",
        description="Start the HTTP service with its page, for this machine only unless --host says otherwise. "
        f"An API key comes from a file or from {KEY_VARIABLE}, never from the command line, which others can read.",
    )
    add_model_option(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    serve.add_argument("--port", type=_port, default=8000, help="default: %(default)s; 0 takes a free one")
    serve.add_argument(
        "--allowed-hosts",
        type=_hosts,
        default=(),
        metavar="NAMES",
        help="names, with commas, that clients reach it under, such as faces.example.org,*.lan; * for any "
        "(default: addresses and localhost)",
    )
    serve.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line is the key that clients bring")
    add_threshold_option(serve, default=0.8)
    serve.add_argument("--max-bytes", type=_count, metavar="N", help="of one request")
    serve.add_argument("--max-images", type=_count, metavar="N", help="of one request")
    serve.add_argument("--max-pixels", type=_count, metavar="N", help="of one picture")
    serve.add_argument(
        "--threads", type=_count, metavar="N", help="of the model; default: half the cores, the rest decode"
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    try:
        import uvicorn

        from gender_classifier.serve.app import build_app
        from gender_classifier.serve.guard import parse_host
        from gender_classifier.serve.protocol import MAX_CONNECTIONS, MAX_HEAD_BYTES, GuardedProtocol
        from gender_classifier.serve.settings import Settings
    except ImportError as error:
        raise ServiceError(
            f"{error.name} is not installed; `pip install 'gender-classifier[serve]'`, or in a checkout "
            "`pip install -e '.[serve]'`"
        ) from None
    from gender_classifier.predict.predictor import Predictor

    key = _read_key(options.api_key_file)
    given = {
        name: getattr(options, name)
        for name in ("threshold", "max_bytes", "max_images", "max_pixels")
        if getattr(options, name) is not None
    }
    threads = options.threads or max(1, count_cores() // 2)
    with find_model(options.model, Path.cwd()) as found:
        predictor = Predictor(found.path, threads=threads)
        own_name = parse_host(options.host)
        hosts = (*options.allowed_hosts, *([own_name] if own_name else []))
        settings = Settings(**given, api_key=key, allowed_hosts=hosts, registry_version=found.registry_version)
    app = build_app(predictor, settings)
    _allow_files(MAX_CONNECTIONS)
    with _bind(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        print(f"gender-classifier: http://{_bracket(host)}:{port}  (API: /docs; Ctrl-C stops it)", flush=True)
        if key is None and not ipaddress.ip_address(host).is_loopback:
            print(f"{host}: whoever reaches this address can use it; --api-key-file asks for a key", file=sys.stderr)
        # uvicorn ends in good order, then raises the signal again: that is no failure.
        signal.signal(signal.SIGTERM, _exit)
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            ws="none",
            log_level="error",  # what clients do wrong is counted, not logged: nobody fills the disk with it
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _allow_files(connections: int) -> None:
    """Raise the limit of open files so that it is not what ends the accepting of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )


def _exit(_: int, __: FrameType | None) -> None:
    sys.exit(0)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # Of a failed bind, Python's own text repeats the address; of a name that is not found, only it says why.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ServiceError(
            f"{host}:{port}: cannot listen there ({reason}); name another with --host and --port"
        ) from None


def _read_key(path: Path | None) -> str | None:
    if path is None:
        key, source = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if key is None:
            return None
    else:
        source = str(path)
        try:
            if path.stat().st_mode & 0o077:
                _logger.warning("%s can be read by other users of this machine; chmod 600 it", path)
            key = (path.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"{path}: cannot be read as the API key's file ({error})") from None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ServiceError(f"{source}: holds no usable API key; write one of printable ASCII characters without spaces")
    return key


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _hosts(text: str) -> tuple[str, ...]:
    from gender_classifier.serve.guard import parse_allowed_hosts

    try:
        return parse_allowed_hosts(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return value
