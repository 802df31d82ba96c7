"""The images of one request: multipart bodies read into memory within stated bounds, and never onto disk."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_NAME = 200  # characters of a file's name that are given back
_MAX_BOUNDARY = 70  # RFC 2046, section 5.1.1
_MAX_DISPOSITION = 8192  # characters of a part's header that are searched

# One parameter of a header; quoted values are matched whole, so that nothing inside them is taken for a parameter.
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
# RFC 8187: charset, language, then percent-encoded bytes.
_EXTENDED_VALUE = re.compile(r"(?i)(utf-8|iso-8859-1)'[^']*'((?:[!#$&+.^_`|~0-9a-z-]|%[0-9a-f]{2})*)")


class RequestError(Exception):
    """What is wrong with a request: an HTTP status, one word for programs, one line for people."""

    def __init__(self, status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        """Keep what the answer is made of."""
        super().__init__(message)
        self.status, self.reason, self.headers = status, reason, headers or {}


@dataclass(frozen=True)
class Upload:
    """One image as it was sent. ``name`` is the client's, and means nothing here."""

    name: str
    data: bytes


class Capacity:
    """How much there may be at once: requests that are worked on, and bytes of bodies, also of those still arriving."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        """Refuse what exceeds either."""
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._requests = self._bytes = 0

    def check_room(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            RequestError: 503, as many requests as are allowed are worked on.
        """
        if self._requests >= self._max_requests:
            raise _busy(f"{self._requests} requests are being worked on")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one request whose body has arrived until the block ends: a slow sender takes nobody's place.

        Raises:
            RequestError: 503, there is no room.
        """
        self.check_room()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def hold_bytes(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that counts bytes of a body, until the block ends; it raises RequestError (503)."""
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
    """Return the boundary that a multipart/form-data content type names.

    Raises:
        RequestError: 415, it is another content type or has no usable boundary.
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
    hold: Callable[[int], None] = lambda _: None,
) -> list[Upload]:
    """Read the files of a multipart/form-data body, in their order.

    Args:
        chunks: the body as it arrives; what it says of its own length is not believed.
        boundary: of the body's parts; see `find_boundary`.
        name: of the only field there may be.
        max_images: files; one more is refused as soon as it begins.
        max_bytes: of the whole body.
        hold: is told the length of each chunk, and may refuse it.

    Raises:
        RequestError: 400, 413 or 422.
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
            raise RequestError(400, "malformed", f"not a multipart/form-data body ({_first_line(error)})") from None
    if not form.is_whole:
        raise RequestError(400, "malformed", "the multipart/form-data body ends before its last boundary")
    if not form.parts:
        raise RequestError(422, "no_images", f"there is no image in the request; send files in the field `{name}`")
    return [Upload(part.name, bytes(part.data)) for part in form.parts]


def check_length(length: int, max_bytes: int) -> None:
    """Refuse a body of more than ``max_bytes``.

    Raises:
        RequestError: 413.
    """
    if length > max_bytes:
        raise RequestError(413, "too_many_bytes", f"the request is larger than {max_bytes} bytes; send smaller files")


@dataclass
class _Part:
    name: str = ""
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """What the parser calls; keeps the parts."""

    def __init__(self, name: str, max_images: int) -> None:
        self._name, self._max_images = name, max_images
        self.parts: list[_Part] = []
        self.is_whole = False

    def begin_part(self) -> None:
        if len(self.parts) == self._max_images:
            raise RequestError(422, "too_many_images", f"more than {self._max_images} images in one request")
        self.parts.append(_Part())

    def begin_header(self) -> None:
        self.parts[-1].header, self.parts[-1].value = bytearray(), bytearray()

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].value += data[start:end]

    def end_header(self) -> None:
        if self.parts[-1].header.lower() == b"content-disposition":
            self.parts[-1].disposition = bytes(self.parts[-1].value)

    def end_headers(self) -> None:
        part = self.parts[-1]
        kind, options = parse_options_header(part.disposition.decode("latin-1"))
        name = _decode(options.get(b"name", b""))
        if kind != b"form-data" or name != self._name:
            raise RequestError(
                422, "unknown_field", f"the field `{name[:_MAX_NAME]}` is not known; send images in `{self._name}`"
            )
        extended = _find_extended_name(part.disposition.decode("latin-1"))
        part.name = (_decode(options.get(b"filename", b"")) if extended is None else extended)[:_MAX_NAME]

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def end(self) -> None:
        self.is_whole = True


def _find_extended_name(disposition: str) -> str | None:
    """Return the file name in ``filename*=``, which goes before ``filename=``; None if there is no valid one."""
    for name, value in _PARAMETER.findall(disposition[:_MAX_DISPOSITION]):
        if name.lower() == "filename*" and (found := _EXTENDED_VALUE.fullmatch(value.strip().strip('"'))):
            return unquote_to_bytes(found[2]).decode(found[1], "replace")
    return None


def _busy(what: str) -> RequestError:
    return RequestError(503, "busy", f"{what}, and no more are taken; try again in a second", {"Retry-After": "1"})


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
