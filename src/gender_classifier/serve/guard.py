"""Whose requests are answered: by the name they were sent to, and by the page that sent them.

A browser sends requests to a service on this machine for any page. Two ways lead in: a name of the attacker's that
resolves to this machine (DNS rebinding), and a form that posts across sites. The first shows in ``Host``, the second in
``Sec-Fetch-Site`` and ``Origin``, which a page cannot forge.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gender_classifier.serve.answers import refuse
from gender_classifier.serve.uploads import RequestError

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_PORT = re.compile(r"(?::[0-9]{0,5})?", re.ASCII)


class Guard:
    """ASGI middleware: refuse names that are not this service's, and requests that pages of other origins send."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = ()) -> None:
        """Wrap ``app``.

        Args:
            app: the service.
            allowed_hosts: names in lower case, besides literal addresses and ``localhost``; ``*.example.org`` allows
                every name below, ``*`` any.
        """
        self._app, self._allowed = app, frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it before anything of it is read."""
        if scope["type"] == "http":
            try:
                self.check(scope["method"], Headers(scope=scope))
            except RequestError as error:
                await refuse(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def check(self, method: str, headers: Headers) -> None:
        """Check one request.

        Raises:
            RequestError: 421, the host is not this service's; 403, a page of another origin sent it.
        """
        hosts = headers.getlist("host")
        name = parse_host(hosts[0]) if len(hosts) == 1 else None
        # HTTP/1.0 need not name a host; no browser speaks it.
        if hosts and (name is None or not self._allows(name)):
            raise RequestError(
                421, "host", "this service does not answer to that Host; add its name to --allowed-hosts if it should"
            )
        if method in _SAFE_METHODS:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:
            is_own = site in ("same-origin", "none")
        else:
            is_own = origin is None or self._is_own(origin, hosts[0] if hosts else "")
        if not is_own:
            raise RequestError(403, "cross_site", "a page of another origin sent this; use the service's own page")

    def _allows(self, name: str) -> bool:
        if "*" in self._allowed or name in self._allowed or name == "localhost" or name.endswith(".localhost"):
            return True
        if any(one.startswith("*.") and name.endswith(one[1:]) for one in self._allowed):
            return True
        return _is_address(name)

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            found = urlsplit(origin)
        except ValueError:
            return False
        if found.scheme not in ("http", "https"):  # `null` too: a sandboxed page, a file
            return False
        name = parse_host(found.netloc)
        # Behind a proxy the service sees another Host than the page: its name is then in --allowed-hosts.
        return found.netloc.lower() == host.lower() or (
            name is not None and not _is_address(name) and name in self._allowed
        )


def parse_host(text: str) -> str | None:
    """Return the name in a ``Host`` header in lower case, without port, brackets and a final dot; None if malformed."""
    text = text.strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        return name if bracket and _PORT.fullmatch(port) and _is_address(name) else None
    name, colon, port = text.partition(":")
    name = name.removesuffix(".")
    return name if _PORT.fullmatch(colon + port) and _LABELS.fullmatch(name) else None


def parse_allowed_hosts(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names of ``--allowed-hosts`` in lower case.

    Raises:
        ValueError: one is no host name, no address and no pattern such as ``*.example.org``.
    """
    found = []
    for text in texts:
        name = "*" if text.strip() == "*" else parse_host(text.strip().removeprefix("*."))
        if name is None or (":" in text and not text.strip().startswith("[")):
            raise ValueError(
                f"{text.strip()!r} is not a host name such as faces.example.org or *.example.org, without port"
            )
        found.append(f"*.{name}" if text.strip().startswith("*.") else name)
    return tuple(found)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
