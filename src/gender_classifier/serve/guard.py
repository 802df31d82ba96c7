"""Checks of requests: host names (DNS rebinding), origins of pages (cross-site requests), keys."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gender_classifier.serve.middleware import Metrics, Refusal, build_failure

# In lower case. Labels may contain `_`, as container names do.
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?(?::([0-9]{0,5}))?")
_ORIGIN = re.compile(r"(https?)://(.+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Methods allowed to pages of other origins: they change and compute nothing, and the page cannot read the answers.
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_ANY = "*"


@dataclass(frozen=True)
class Authority:
    """Host and port of a ``Host`` header or an origin; ``port`` is None if not given."""

    host: str
    port: int | None

    @cached_property
    def is_local(self) -> bool:
        """True for an IP address or localhost, which an attacker's DNS cannot point here."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        kind = ipaddress.IPv6Address if self.host.startswith("[") else ipaddress.IPv4Address
        try:
            kind(self.host.strip("[]"))
        except ValueError:
            return False
        return True


@lru_cache(maxsize=64)  # nearly all requests name the same host
def parse_authority(text: str) -> Authority | None:
    """Return host (lower case, without a final dot) and port; None if ``text`` is malformed."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None or int(found[2] or 0) > 65535:
        return None
    return Authority(found[1], int(found[2]) if found[2] else None)


@dataclass(frozen=True)
class HostPattern:
    """An entry of the allowed hosts: any host, a name, or all its subdomains; on any port or a given one."""

    name: str
    below: bool = False
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "HostPattern":
        """Parse ``*``, ``NAME``, ``*.NAME``, or one of the latter two with ``:PORT``.

        Raises:
            ValueError: ``text`` is malformed.
        """
        if text == _ANY:
            return cls(_ANY)
        found = parse_authority(text.removeprefix("*."))
        if found is None or text.endswith(":"):
            raise ValueError(
                f"{text!r} is not a host name; use names such as faces.example.org, faces.example.org:8000 or "
                "*.example.org, separated by commas, or * for any"
            )
        return cls(found.host, text.startswith("*."), found.port)

    def matches(self, authority: Authority) -> bool:
        """Return True if this entry allows ``authority``."""
        ports = _DEFAULT_PORTS.values() if authority.port is None else (authority.port,)
        if self.port is not None and self.port not in ports:
            return False
        if self.below:
            return authority.host.endswith(f".{self.name}")
        return self.name in (_ANY, authority.host)


class Key:
    """A secret that requests carry as ``Authorization: Bearer KEY``."""

    def __init__(self, key: str) -> None:
        """Keep the digest of ``key``, printable ASCII."""
        self._digest = hashlib.sha256(key.encode()).digest()

    def is_sent_by(self, request: Request) -> bool:
        """Return True if the request has one ``Authorization`` header, with this key."""
        values = request.headers.getlist("authorization")
        scheme, _, key = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        # Digests have equal lengths, so that the time of the comparison reveals nothing about the key.
        sent = hashlib.sha256(key.strip(" \t").encode("latin-1")).digest()
        return hmac.compare_digest(sent, self._digest) and scheme.lower() == "bearer"


class Guard:
    """ASGI middleware that rejects foreign host names and unsafe requests from pages of other origins."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str] | None, metrics: Metrics) -> None:
        """Wrap an application.

        Args:
            app: answers the requests that pass.
            allowed_hosts: entries for `HostPattern.parse`; IP addresses and localhost always pass. None where the
                command has no option for more.
            metrics: counts refusals by reason.

        Raises:
            ValueError: an entry is malformed.
        """
        self._app, self._metrics = app, metrics
        self._patterns = [HostPattern.parse(text) for text in allowed_hosts or ()]
        self._advice = "use its IP address or localhost" + (
            ", or start it with --allowed-hosts" if allowed_hosts is not None else ""
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400, 403 or 421."""
        refusal = self._check(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        self._metrics.errors.labels(refusal.reason).inc()
        await build_failure(*refusal)(scope, receive, send)

    def _check(self, scope: Scope) -> Refusal | None:
        hosts = _find_values(scope, b"host")
        if len(hosts) != 1:
            return Refusal(400, "host", f"the request has {len(hosts)} Host headers; send exactly one")
        named = f"Host {hosts[0][:100]!r}"
        host = parse_authority(hosts[0])
        if host is None:
            return Refusal(400, "host", f"{named} is not a host name or an IP address; check the address")
        if not host.is_local and not any(pattern.matches(host) for pattern in self._patterns):
            return Refusal(421, "host", f"{named} is not a name of this service; {self._advice}")
        sites, origins = _find_values(scope, b"sec-fetch-site"), _find_values(scope, b"origin")
        if scope["method"] not in _SAFE_METHODS and not _is_same_origin(sites, origins, host):
            message = "a page of another origin may not post to this service; use the service's own page"
            return Refusal(403, "origin", message)
        return None


def _is_same_origin(sites: Sequence[str], origins: Sequence[str], host: Authority) -> bool:
    """Return False if the browser says that the request comes from a page of another origin.

    ``Sec-Fetch-Site`` takes precedence: pages cannot set it, and it is right behind a proxy that changes ``Host``.
    Browsers send it over TLS and to loopback, and ``Origin`` otherwise. Other programs send neither.
    """
    if sites:
        return all(site in ("same-origin", "none") for site in sites)
    return all(_is_origin_of(origin, host) for origin in origins)


def _is_origin_of(origin: str, host: Authority) -> bool:
    found = _ORIGIN.fullmatch(origin.lower())
    authority = parse_authority(found[2]) if found else None
    if found is None or authority is None:
        return False
    default = _DEFAULT_PORTS[found[1]]
    return (authority.host, authority.port or default) == (host.host, host.port or default)


def _find_values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip(" \t") for key, value in scope["headers"] if key == name]
