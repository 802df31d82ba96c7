"""Hide passwords and tokens, in addresses and in the environment, from all output and storage.

Every message, error and traceback passes through :func:`hide_secrets`.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"

# Variables that hold a secret (not PWD or SSH_ASKPASS), and those that hold an address with one.
_SECRET_VARIABLE = re.compile(
    r"((?<!ask)pass(word|wd|phrase)?|token|secret|(secret|secret_access|api|access|account|private|kaggle)_key)$", re.I
)
_ADDRESS_VARIABLE = re.compile(r"(uri|url|dsn|destination|artifact_root|connection_string)$|_proxy$", re.I)

# Addresses, parameters and keys with secret names, and headers. All match in linear time.
_ADDRESS = re.compile(r"(?<=://)[^\s'\"<>]+")
_NAMES = r"(?:pass(?:word|wd|phrase)?|pwd|token|secret|credential|signature|api_?key|access_?key|account_?key)"
_PARAMETER = re.compile(rf"({_NAMES}(?:=|%3D|['\"]: ?(?=['\"])))('[^']*'|\"[^\"]*\"|[^\s&;,'\"<>#)]+)", re.I)
_HEADER = re.compile(r"(authorization['\"]?: ?['\"]?\w+ )([^\s'\",]+)", re.I)

_SHORTEST = 4  # shorter passwords are hidden in addresses only: elsewhere they would match half of the text


def hide_secrets(text: str, *, known: Iterable[str] | None = None) -> str:
    """Replace passwords and tokens in ``text``, those of any address and of this environment, by ``***``.

    Args:
        text: a message, a library's error, a traceback.
        known: secrets to hide wherever they occur, plain or escaped; by default those of the environment.
    """
    for secret in sorted(_spell(find_secrets() if known is None else known), key=len, reverse=True):
        text = re.sub(re.escape(secret), HIDDEN, text, flags=re.I)  # libraries write hosts and escapes in lower case
    for pattern in (_PARAMETER, _HEADER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _ADDRESS.sub(lambda match: _hide_user(match[0]), text)


def hide_in_addresses(text: str) -> str:
    """Hide the secrets of addresses in ``text`` and nothing else: for tags and params."""
    return hide_secrets(text, known=())


def strip_credentials(address: str) -> str:
    """Return ``address`` without user, password and secret parameters: enough to tell one store from another."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    # An unescaped password may hold a `?`.
    before, question, query = rest.partition("?")
    if "@" in before:
        before = before.rpartition("@")[2] if not before.startswith("/") else before
    elif ":" in before and "@" in query:
        before, question, query = query.rpartition("@")[2].partition("?")
    kept = [part for part in query.split("&") if part and not _PARAMETER.search(unquote(part))]
    return f"{scheme.lower()}://{before.rstrip('/')}" + (f"{question}{'&'.join(kept)}" if kept else "")


def find_secrets() -> set[str]:
    """Return the secrets of the environment: values of variables named so, and those in addresses."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            found.add(value)
        elif _ADDRESS_VARIABLE.search(name):
            found |= set(_find_in_address(value))
    return found


def protect_stderr() -> None:
    """Hide the environment's secrets in everything written to standard error, such as tracebacks and logs.

    Standard output is left alone: it may carry data in which a short password occurs.
    """
    if find_secrets() and not isinstance(sys.stderr, _HidingStream):
        sys.stderr = _HidingStream(sys.stderr)


class _HidingStream:
    """Text stream that hides secrets in what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(hide_secrets(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _hide_user(address: str) -> str:
    """Hide the user and password of ``address``, given without its scheme."""
    start, _, _ = address.partition("/")
    # After a colon, an unescaped password may hold a slash.
    end = address.rfind("@") if ":" in start.partition("@")[0] else start.rfind("@")
    return f"{HIDDEN}{address[end:]}" if end > 0 else address


def _find_in_address(address: str) -> Iterator[str]:
    """Yield everything that may be secret in ``address``, even if it is malformed."""
    yield from (match[2].strip("'\"") for match in _PARAMETER.finditer(address))
    head, at, _ = address.rpartition("@")
    if not at or address.startswith("models:"):
        return
    has_scheme = "//" in head
    userinfo = head.partition("//")[2] if has_scheme else head
    pieces = userinfo.split(":")
    for place in range(1, len(pieces)):
        yield ":".join(pieces[place:])
    if len(pieces) == 1 and has_scheme and re.match(r"https?:", address, re.I) and len(userinfo) > 2 * _SHORTEST:
        yield userinfo  # a token given as the user
    # Libraries that split the address elsewhere show a part of the password.
    if len(pieces) > 1:
        yield from re.split(r"[/?#@:\s\\]", userinfo.partition(":")[2])
        yield base64.b64encode(unquote(userinfo).encode("utf-8", "surrogateescape")).decode()


def _spell(secrets: Iterable[str]) -> set[str]:
    """Return the forms in which libraries write ``secrets``: URL-escaped, as repr, as JSON, on one line."""
    spelled: set[str] = set()
    for secret in secrets:
        for plain in {secret, unquote(secret), unquote_plus(secret)}:
            escaped = (quote(plain, safe="", errors="replace"), quote(plain, errors="replace"))
            spelled |= {plain, *escaped, quote(plain, safe=" +", errors="replace"), quote_plus(plain, errors="replace")}
            spelled |= {repr(plain)[1:-1], ascii(plain)[1:-1], json.dumps(plain)[1:-1]}
            spelled |= {" ".join(plain.split()), re.sub(r"[\t\r\n]", "", plain), *map(quote, escaped)}
    return {form for form in spelled if len(form) >= _SHORTEST}
