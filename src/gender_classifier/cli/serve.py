"""The subcommand ``gender-classifier serve``."""

import argparse
import ipaddress
import os
import stat
import sys
from pathlib import Path

from gender_classifier.cli.options import (
    add_max_pixels_option,
    add_model_option,
    add_threshold_option,
    count,
    port,
)
from gender_classifier.common.threads import count_cores
from gender_classifier.errors import ServiceError, needs_extra
from gender_classifier.track.model_source import find_model

KEY_VARIABLE = "GENDER_CLASSIFIER_API_KEY"

_MAX_KEY = 4096  # bytes of an API key


def add_serve_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``serve`` to the subcommands."""
    serve = commands.add_parser(
        "serve",
        help="serve predictions over HTTP: an API, a web page, metrics",
        description="Start the HTTP service, reachable from this machine only unless --host is given. The API key is "
        f"read from a file or from {KEY_VARIABLE}, never from the command line, which other users can see.",
    )
    add_model_option(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    serve.add_argument("--port", type=port, default=8000, help="default: %(default)s; 0 for any free port")
    serve.add_argument("--api-key-file", type=Path, metavar="FILE", help="file whose first line is the API key")
    serve.add_argument(
        "--allowed-hosts",
        type=_host_names,
        default=(),
        metavar="NAMES",
        help="host names by which clients reach the service, separated by commas: NAME, NAME:PORT, *.NAME for "
        "subdomains, * for any; IP addresses and localhost are always allowed",
    )
    add_threshold_option(serve)
    serve.add_argument("--max-bytes", type=count, metavar="N", help="limit per request; default: 16 MiB")
    serve.add_argument("--max-images", type=count, metavar="N", help="limit per request; default: 64")
    add_max_pixels_option(serve)
    serve.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="threads of the model; default: half the cores (two more processes decode)",
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    with needs_extra("serve"):
        from gender_classifier.cli.listening import run_app
        from gender_classifier.serve.app import Settings, build_app
        from gender_classifier.serve.guard import parse_authority
    from gender_classifier.predict.predictor import Predictor

    key = read_key(options.api_key_file)
    limits = {name: getattr(options, name) for name in ("max_bytes", "max_images", "max_pixels")}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    # The name that the service listens on is allowed too.
    hosts = (*options.allowed_hosts, *([options.host] if parse_authority(options.host) else []))
    threads = options.threads or max(1, count_cores() // 2)
    with find_model(options.model, Path.cwd()) as found:
        predictor = Predictor(found.path, threads=threads)
        settings = Settings(
            **given,
            threshold=options.threshold,
            api_key=key,
            allowed_hosts=hosts,
            registry_version=found.registry_version,
        )
    app = build_app(predictor, settings)

    def announce(host: str, address: str) -> None:
        print(f"gender-classifier: {address}  (API: /docs; Ctrl-C stops it)", flush=True)
        if key is None and not ipaddress.ip_address(host).is_loopback:
            print(f"{host}: anyone who reaches this address can use it; set a key with --api-key-file", file=sys.stderr)

    run_app(app, options.host, options.port, announce, "--host or --port")


def read_key(path: Path | None) -> str | None:
    """Return the API key from a file or else from the environment; None if neither is given.

    Raises:
        ServiceError: the key cannot be read or is invalid, or other users can read its file.
    """
    try:
        key = os.environ.get(KEY_VARIABLE) if path is None else _read_private(path).partition(b"\n")[0].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{path}: cannot be read as the API key's file ({error})") from None
    if key is None:
        return None
    key = key.strip()
    if not 0 < len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ServiceError(
            f"{path or KEY_VARIABLE}: holds no usable API key; use printable ASCII characters without spaces"
        )
    return key


def _read_private(path: Path) -> bytes:
    """Read a key file, and reject one of this user's that other users can read, as OpenSSH does.

    Files of other owners, such as a container's mounted secrets, are accepted: this user cannot change their mode.
    """
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        mode = stat.S_IMODE(state.st_mode)
        if state.st_uid == os.getuid() and mode & 0o077:
            raise ServiceError(f"{path}: other users can read this API key (mode {mode:04o}); run `chmod 600 {path}`")
        return file.read(_MAX_KEY + 1)


def _host_names(text: str) -> tuple[str, ...]:
    from gender_classifier.serve.guard import HostPattern

    names = tuple(name.strip() for name in text.split(","))
    try:
        for name in names:
            HostPattern.parse(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names
