"""Multipart uploads, read into memory within limits and never written to disk."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_NAME = 200  # characters of a file's name in answers
_MAX_BOUNDARY = 70  # RFC 2046, section 5.1.1
_MAX_DISPOSITION = 8192  # characters of a part's header that are parsed

# A header's parameter; quoted values are matched whole, so that nothing inside them is read as a parameter.
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
# RFC 8187: charset, language, then percent-encoded bytes.
_EXTENDED_VALUE = re.compile(r"(?i)(utf-8|iso-8859-1)'[^']*'((?:[!#$&+.^_`|~0-9a-z-]|%[0-9a-f]{2})*)")


class RequestError(Exception):
    """A refused request: HTTP status, one word for programs, one line for people."""

    def __init__(self, status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        """Store the parts of the answer."""
        super().__init__(message)
        self.status, self.reason, self.headers = status, reason, headers or {}


@dataclass(frozen=True)
class Upload:
    """An image as sent. ``name`` is chosen by the client and has no meaning to the service."""

    name: str
    data: bytes


class Capacity:
    """Limits on concurrent work: requests being processed, and bytes of bodies, including those still arriving."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        """Start with nothing in use."""
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._requests = self._bytes = 0

    def check_room(self) -> None:
        """Check that another request may be processed.

        Raises:
            RequestError: 503, the limit is reached.
        """
        if self._requests >= self._max_requests:
            raise _busy(f"{self._requests} requests are being worked on")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request as being processed. Called after its body has arrived, so that slow senders take no place.

        Raises:
            RequestError: 503, the limit is reached.
        """
        self.check_room()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def hold_bytes(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes until the block ends, or raises RequestError (503)."""
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            if self._bytes + count > self._max_bytes:
                raise _busy(f"{self._bytes} bytes of uploads are being worked on")
            held += count
            self._bytes += count

        try:
            yield hold
        finally:
            self._bytes -= held


def find_boundary(content_type: str) -> bytes:
    """Return the boundary of a multipart/form-data content type.

    Raises:
        RequestError: 415, it is another content type, or the boundary is missing or invalid.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise RequestError(
            415, "not_multipart", "send the images as multipart/form-data with a boundary, as `curl -F` does"
        )
    return boundary


async def read_uploads(
    chunks: AsyncIterator[bytes],
    boundary: bytes,
    *,
    name: str,
    max_images: int,
    max_bytes: int,
    hold: Callable[[int], None],
) -> list[Upload]:
    """Read the files of a multipart/form-data body, in order.

    Args:
        chunks: the body as it arrives; its length is measured, not taken from a header.
        boundary: boundary of the parts, see `find_boundary`.
        name: name of the only field allowed.
        max_images: maximum number of files, checked at the start of each.
        max_bytes: maximum length of the whole body.
        hold: called with the length of each chunk; may refuse it.

    Raises:
        RequestError: 400, 413, 422, or raised by ``hold``.
    """
    form = _Form(name, max_images)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": form.begin_part,
            "on_header_begin": form.begin_header,
            "on_header_field": form.add_header_name,
            "on_header_value": form.add_header_value,
            "on_header_end": form.end_header,
            "on_headers_finished": form.end_headers,
            "on_part_data": form.add_data,
            "on_end": form.end,
        },
    )
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        check_length(received, max_bytes)
        hold(len(chunk))
        try:
            parser.write(chunk)
        except FormParserError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RequestError(400, "malformed", f"not a multipart/form-data body ({reason})") from None
    if not form.is_whole:
        raise RequestError(400, "malformed", "the multipart/form-data body ends before its last boundary")
    if not form.parts:
        raise RequestError(422, "no_images", f"there is no image in the request; send files in the field `{name}`")
    return [Upload(part.name, bytes(part.data)) for part in form.parts]


def check_length(length: int, max_bytes: int) -> None:
    """Check the length of a body.

    Raises:
        RequestError: 413, it exceeds ``max_bytes``.
    """
    if length > max_bytes:
        raise RequestError(413, "too_many_bytes", f"the request is larger than {max_bytes} bytes; send smaller files")


@dataclass
class _Part:
    name: str = ""
    disposition: bytes = b""
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """Callbacks of the parser, which collect the parts."""

    def __init__(self, name: str, max_images: int) -> None:
        self._name, self._max_images = name, max_images
        self._header, self._value = bytearray(), bytearray()
        self.parts: list[_Part] = []
        self.is_whole = False

    def begin_part(self) -> None:
        if len(self.parts) == self._max_images:
            raise RequestError(422, "too_many_images", f"more than {self._max_images} images in one request")
        self.parts.append(_Part())

    def begin_header(self) -> None:
        self._header, self._value = bytearray(), bytearray()

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self.parts[-1].disposition = bytes(self._value)

    def end_headers(self) -> None:
        disposition = self.parts[-1].disposition.decode("latin-1")
        kind, options = parse_options_header(disposition)
        name, filename = (options.get(key, b"").decode("utf-8", "replace") for key in (b"name", b"filename"))
        if kind != b"form-data" or name != self._name:
            message = f"the field `{name[:_MAX_NAME]}` is not known; send images in `{self._name}`"
            raise RequestError(422, "unknown_field", message)
        extended = _find_extended_name(disposition)
        self.parts[-1].name = (filename if extended is None else extended)[:_MAX_NAME]

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def end(self) -> None:
        self.is_whole = True


def _find_extended_name(disposition: str) -> str | None:
    """Return the file name in ``filename*=``, which takes precedence over ``filename=``; None if missing or invalid."""
    for name, value in _PARAMETER.findall(disposition[:_MAX_DISPOSITION]):
        if name.lower() == "filename*" and (found := _EXTENDED_VALUE.fullmatch(value.strip().strip('"'))):
            return unquote_to_bytes(found[2]).decode(found[1], "replace")
    return None


def _busy(what: str) -> RequestError:
    return RequestError(503, "busy", f"{what}, and no more are taken; try again in a second", {"Retry-After": "1"})
