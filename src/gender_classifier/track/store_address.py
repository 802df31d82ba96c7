"""The address of an MLflow store: refused in one line where it is badly formed, before a library takes it apart.

What libraries say of such an address shows parts of the password.
"""

import os
import re
import socket
from urllib.parse import urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gender_classifier.common.credentials import HIDDEN, hide_secrets
from gender_classifier.errors import TrackingError

_DATABASE = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?://")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def check_address(variable: str, address: str) -> str:
    """Return ``address`` with its scheme in lower case.

    Args:
        variable: of the environment, that holds it; for the message.
        address: of a server or database, a file URI or a path.

    Raises:
        TrackingError: it is badly formed.
    """
    scheme, mark, rest = address.partition("://")
    problem = _find_problem(scheme.lower() + mark + rest)
    if problem:
        raise TrackingError(f"{variable} is {show_address(address)!r}: {problem}")
    return scheme.lower() + mark + rest


def is_server(address: str) -> bool:
    """Tell whether MLflow's REST API answers at ``address``; a database or folder is opened by this process itself."""
    return address.startswith(("http:", "https:", "databricks"))


def show_address(address: str) -> str:
    """Return ``address`` for a message, without what stands before its last ``@``."""
    head, at, tail = address.rpartition("@")
    scheme, mark, _ = head.partition("://")
    return hide_secrets(f"{scheme + mark if mark else ''}{HIDDEN}@{tail}" if at else address)


def parse_database(address: str) -> URL:
    """Return the parts of a database's address.

    Raises:
        TrackingError: it is none.
    """
    try:
        return make_url(address)
    except (ArgumentError, ValueError):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {show_address(address)!r}, no address of a database; write it as "
            "sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None


def check_port(address: str, timeout: float) -> None:
    """Look whether a database server is there at all: MLflow would try for two minutes.

    Args:
        address: anything else than a database's is passed over.
        timeout: seconds to wait for an answer.

    Raises:
        TrackingError: nobody answers at its host and port.
    """
    if not _DATABASE.match(address):
        return
    url = parse_database(address)
    port = url.port or _PORTS[url.get_backend_name()]
    if not url.host or url.host.startswith("/"):  # a socket in the file system
        return
    try:
        socket.create_connection((url.host, port), timeout=timeout).close()
    except (OSError, UnicodeError) as error:
        raise TrackingError(
            f"MLflow's database at {url.host}:{port} does not answer ({error}); start it, or set MLFLOW_TRACKING_URI "
            "to another"
        ) from None


def _find_problem(address: str) -> str:
    """Return what is wrong with ``address`` and what to do; an empty text where nothing is."""
    scheme, mark, rest = address.partition("://")
    is_file = scheme == "file" or scheme.startswith("sqlite")
    if not mark:
        return _find_path_problem(address)
    if re.search(r"[\s\x00-\x1f\x7f]", address) and ("@" in address or not is_file):
        return "holds a space or control character; write it in percent form, a space as %20"
    try:
        host = urlsplit(address).netloc
    except ValueError:
        return "the host is not valid; check its brackets, and write [ and ] in a password as %5B and %5D"
    if is_file:
        return "names a user or password, which a file has not; remove them" if "@" in host else ""
    if _DATABASE.match(address):
        return _find_database_problem(address)
    return _find_server_problem(address, rest[len(host) :]) if scheme in ("http", "https") else ""


def _find_path_problem(address: str) -> str:
    user, at, _ = address.partition("@")
    if not at or ":" not in user or os.path.exists(address) or re.match(r"(sqlite|file):", address):  # noqa: PTH110
        return ""
    return "has no scheme; write http://, https:// or postgresql:// before the rest"


def _find_server_problem(address: str, behind_host: str) -> str:
    if "@" in behind_host:
        return "holds an @ behind the host; in a password write / as %2F, ? as %3F and # as %23"
    parts = urlsplit(address)
    try:
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if not port_is_valid:
        return "the port is not a number from 1 to 65535; correct it"
    return "" if parts.hostname else "names no host; write http://HOST:PORT"


def _find_database_problem(address: str) -> str:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        return "the port is not a number, or the rest is no address of a database; correct it"
    if "@" in (url.host or ""):
        return "holds more than one @; write @ in a password as %40"
    return "" if url.port is None or 0 < url.port < 65536 else "the port is not a number from 1 to 65535; correct it"
