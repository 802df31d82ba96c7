"""``gender-classifier serve``: the service as a process."""

import argparse
import ipaddress
import logging
import os
import resource
import signal
import socket
import stat
import sys
from pathlib import Path
from types import FrameType

from gender_classifier.cli.options import add_max_pixels_option, add_model_option, add_threshold_option, parse_count
from gender_classifier.common.threads import count_cores
from gender_classifier.errors import ServiceError
from gender_classifier.track.model_source import find_model

KEY_VARIABLE = "GENDER_CLASSIFIER_API_KEY"

# Connections, silent ones included; and files that are open beside them, with some to spare.
_MAX_CONNECTIONS, _OTHER_FILES = 512, 128
# Bytes of an API key.
_MAX_KEY = 4096


def add_serve_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    serve.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line is the key that clients bring")
    serve.add_argument(
        "--allowed-hosts",
        type=_host_names,
        default=(),
        metavar="NAMES",
        help="host names under which clients reach the service, separated by commas; *.NAME, NAME:PORT and * for any; "
        "IP addresses and localhost always work",
    )
    add_threshold_option(serve)
    serve.add_argument("--max-bytes", type=parse_count, metavar="N", help="of one request")
    serve.add_argument("--max-images", type=parse_count, metavar="N", help="of one request")
    add_max_pixels_option(serve)
    serve.add_argument(
        "--threads", type=parse_count, metavar="N", help="of the model; default: half the cores, the rest decode"
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    try:
        import uvicorn

        from gender_classifier.serve.app import Settings, build_app
        from gender_classifier.serve.connections import GRACE_SECONDS, Connection, Server
        from gender_classifier.serve.guard import parse_authority
    except ImportError as error:
        raise ServiceError(
            f"{error.name} is not installed; `pip install 'gender-classifier[serve]'`, or in a checkout "
            "`pip install -e '.[serve]'`"
        ) from None
    from gender_classifier.predict.predictor import Predictor

    key = read_key(options.api_key_file)
    given = {
        name: getattr(options, name)
        for name in ("threshold", "max_bytes", "max_images", "max_pixels")
        if getattr(options, name) is not None
    }
    # Whoever listens on a name is reached by it.
    own = (options.host,) if parse_authority(options.host) else ()
    hosts = (*options.allowed_hosts, *own)
    threads = options.threads or max(1, count_cores() // 2)
    with find_model(options.model, Path.cwd()) as found:
        predictor = Predictor(found.path, threads=threads)
        settings = Settings(**given, api_key=key, allowed_hosts=hosts, registry_version=found.registry_version)
    app = build_app(predictor, settings)
    with _bind(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        print(f"gender-classifier: http://{_bracket(host)}:{port}  (API: /docs; Ctrl-C stops it)", flush=True)
        if key is None and not ipaddress.ip_address(host).is_loopback:
            print(f"{host}: whoever reaches this address can use it; --api-key-file asks for a key", file=sys.stderr)
        # One line for each odd header of a multipart body: strangers would fill the log.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        # uvicorn ends in good order, then raises the signal again: that is no failure.
        signal.signal(signal.SIGTERM, _exit)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here depends on them
            limit_concurrency=_count_connections(),
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        Server(config).run(sockets=[listener])


def _exit(_: int, __: FrameType | None) -> None:
    sys.exit(0)


def _count_connections() -> int:
    """Return how many connections the limit on open files allows; the limit is raised where it may be."""
    wanted = _MAX_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(_MAX_CONNECTIONS, soft - _OTHER_FILES))


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


def read_key(path: Path | None) -> str | None:
    """Return the API key: of the file, or else of the environment; None if neither is given.

    Raises:
        ServiceError: it cannot be read or used, or other users can read its file.
    """
    if path is None:
        key, source = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if key is None:
            return None
    else:
        source = str(path)
        try:
            key = (_read_private(path).splitlines() or [b""])[0].decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"{path}: cannot be read as the API key's file ({error})") from None
    key = key.strip()
    if not 0 < len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ServiceError(f"{source}: holds no usable API key; write one of printable ASCII characters without spaces")
    return key


def _read_private(path: Path) -> bytes:
    """Read a key's file by OpenSSH's rule: one of this user's that others may read is refused.

    Files of other owners, as containers mount their secrets, are none of this user's to protect.
    """
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        mode = stat.S_IMODE(state.st_mode)
        if state.st_uid == os.getuid() and mode & 0o077:
            raise ServiceError(f"{path}: other users can read this API key (mode {mode:04o}); run `chmod 600 {path}`")
        return file.read(_MAX_KEY + 1)


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_names(text: str) -> tuple[str, ...]:
    from gender_classifier.serve.guard import HostPattern

    names = tuple(name.strip() for name in text.split(","))
    try:
        for name in names:
            HostPattern.parse(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return value
