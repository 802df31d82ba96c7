"""Passwords and tokens in addresses and in the environment: found, and hidden wherever text is shown or stored."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, TextIO
from urllib.parse import quote, quote_plus, unquote

_HIDDEN = "***"
_ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION")
_PLAIN = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "AWS_SECRET_ACCESS_KEY",
          "AWS_SESSION_TOKEN", "PGPASSWORD", "GENDER_CLASSIFIER_API_KEY")  # fmt: skip
_SENSITIVE = r"[\w-]*(?:passw(?:or)?d|pwd|token|secret|api[_-]?key|sig(?:nature)?|credential)[\w-]*"
_USERINFO = re.compile(r"(?<=://)[^\s/?#'\"@]*:[^\s'\"]*@(?=[^\s@'\"]*)")
_QUERY = re.compile(rf"((?:[?&;]|%3F|%26){_SENSITIVE}(?:=|%3D))(?:(?!%26)[^&;\s'\"])*", re.IGNORECASE)


def hide_secrets(text: str) -> str:
    """Replace passwords and tokens in ``text`` with ``***``.

    Hidden are the user and password of any address, query parameters such as ``password`` and ``token``, and the
    secrets of this process's environment wherever they appear, percent-encoded or not.
    """
    for secret in _find_secrets(tuple(os.environ.get(name, "") for name in (*_ADDRESSES, *_PLAIN))):
        text = text.replace(secret, _HIDDEN)
    if "://" in text:
        text = _USERINFO.sub(f"{_HIDDEN}@", text)
    return _QUERY.sub(rf"\1{_HIDDEN}", text) if "=" in text or "%3" in text else text


def drop_credentials(address: str) -> str:
    """Return ``address`` as it names a server, whoever logs in: without user, password and secret parameters."""
    scheme, found, rest = address.partition("://")
    if not found:
        return address
    host = rest.rpartition("@")[2]
    return re.sub(rf"([?&]){_SENSITIVE}=[^&]*", r"\1", f"{scheme}://{host}", flags=re.IGNORECASE)


def hide_secrets_in_output() -> None:
    """Hide secrets in all that this process prints from now on: tracebacks and the logs of libraries too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _HidingStream):
            setattr(sys, name, _HidingStream(stream))


class _HidingStream:
    """A text stream that searches each text for secrets before it hands it to another stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        self._stream.write(hide_secrets(text))
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@lru_cache(maxsize=8)
def _find_secrets(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the secrets in the values of :data:`_ADDRESSES` and :data:`_PLAIN`, the longest first, in every form."""
    found = {value for value in values[len(_ADDRESSES) :] if len(value) >= 3}  # a shorter one would hide ordinary text
    for address in values[: len(_ADDRESSES)]:
        # A password may hold `/`, `@` and `:` by mistake; it then ends at the last @.
        userinfo, _, _ = address.partition("://")[2].rpartition("@")
        password = userinfo.partition(":")[2] if ":" in userinfo else userinfo
        # Whoever parses it may quote a part of it: "port could not be cast ... as 'half-a-password'".
        found |= {password, *(part for part in re.split("[/@:?#]", password) if len(part) >= 6)}
        found |= set(re.findall(rf"[?&;]{_SENSITIVE}=([^&;]*)", address, re.IGNORECASE))
    forms = {form for one in found for form in (one, unquote(one), quote(one, safe=""), quote_plus(one), quote(one))}
    return tuple(sorted((form for form in forms if len(form) >= 3), key=len, reverse=True))
