"""Recognize image containers by their first bytes, check them, and cut them to the parts that hold pixels.

The decoder sees nothing else: text, colour profiles, EXIF, further pages and frames are never parsed by it. Features
that decode slowly, or into more memory than the pixels, are refused before decoding.
"""

import re
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from gender_classifier.data.formats.orientation import find_orientation
from gender_classifier.data.formats.tiff_files import open_tiff
from gender_classifier.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are decoded; Pillow's other readers are not used."""

MAX_SCANS = 100
"""Most scans of a JPEG. Encoders write up to a dozen; each costs a pass over the image, about 3 ns per pixel."""

_SCANS_AT_ANY_SIZE, _SCANNED_PIXELS = 20, 200_000_000

_MAX_PARTS = 100_000
"""Most segments, chunks or blocks of a file, as each costs microseconds. A PNG of 64 MB has about 8,000."""

_MAX_TEXT = 2**20
"""Most bytes of metadata searched for the orientation."""

_PNG = b"\x89PNG\r\n\x1a\n"

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"jxl ": "JPEG XL", b"jp2 ": "JPEG 2000", b"jpx ": "JPEG 2000",
           b"crx ": "Canon CR3 raw", **dict.fromkeys(_HEIF_BRANDS, "HEIC")}  # fmt: skip
_SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"8BPS": "Photoshop PSD",
    b"%PDF": "PDF",
    b"FUJIFILMCCD-RAW": "Fujifilm raw",
}


class Container(NamedTuple):
    """The parts of an image file that the decoder gets.

    Attributes:
        format: one of :data:`FORMATS`.
        data: a file in it with the first image and nothing else.
        orientation: EXIF orientation of the whole file, 1 to 8.
    """

    format: str
    data: bytes
    orientation: int = 1


def open_container(data: bytes, *, max_pixels: int) -> Container:
    """Cut an image file to its pixels, in time linear in its length, without unpacking anything.

    Args:
        data: the file's content.
        max_pixels: larger images are refused, if the container states their size.

    Raises:
        ImageError: its format is not read, or it uses a feature that is refused.
    """
    for starts, opener in _OPENERS:
        if data.startswith(starts):
            try:
                return opener(data, max_pixels)
            except MemoryError:
                raise ImageError("too_large", f"its {len(data):,} bytes need more memory than there is") from None
    if name := name_unread_format(data):
        raise ImageError("not_an_image", f"{name} is not read; convert the file to JPEG or PNG")
    raise ImageError("not_an_image", f"not an image in a format that is read ({', '.join(FORMATS)})")


def name_unread_format(data: bytes) -> str | None:
    """Return the name of a known format that is not decoded, such as HEIC, by the file's content; or None."""
    if data[4:8] == b"ftyp":
        size = min(max(int.from_bytes(data[:4], "big"), 16), 256)
        brands = [data[8:12], *(data[start : start + 4] for start in range(16, size, 4))]
        # HEIC and AVIF files both have the brand mif1; the others decide.
        named = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return next((name for name in named if name != "HEIC"), named[0] if named else "MP4 video")
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image of more than ``max_pixels``.

    Raises:
        ImageError: ``too_large``.
    """
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} x {height} px is more than {max_pixels} px")


def _too_many(what: str) -> ImageError:
    return ImageError("unreadable", f"has more than {_MAX_PARTS:,} {what}; save it again with another program")


# A marker after entropy-coded bytes: not a stuffed zero, padding or a restart.
_NEXT_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_NOT_PADDING = re.compile(rb"[^\0\xff]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length
_APPLICATION = frozenset((0xFE, *range(0xE0, 0xF0)))  # and comments
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _open_jpeg(data: bytes, max_pixels: int) -> Container:
    """Keep the segments that affect pixels, of application segments only JFIF's and Adobe's colour information."""
    view, position, count, exif, xmp, pixels = memoryview(data), 2, 0, b"", b"", 1
    kept: list[bytes | memoryview] = [view[:2]]
    while data[position : position + 1] == b"\xff" and (found := _NOT_PADDING.search(data, position + 1)):
        start = found.end()
        marker = data[start - 1]
        if marker == _SOS:
            position = start - 2
            break
        count += 1
        if count > _MAX_PARTS:
            raise _too_many("segments")
        position = start if marker in _ALONE else start + max(int.from_bytes(data[start : start + 2], "big"), 2)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data[start + 3 : start + 7].ljust(4, b"\0"))
            check_size(width, height, max_pixels)
            pixels = max(pixels, width * height)
        if marker not in _APPLICATION or _has_color_information(marker, data[start + 2 : position]):
            kept += b"\xff", view[start - 1 : position]
        elif marker == 0xE1:
            content = data[start + 2 : position]
            if content.startswith(b"Exif\0\0"):
                exif += content[6:] if exif else content  # long blocks continue in the next segment
            elif content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                xmp = content
    kept.append(view[position : _find_jpeg_end(data, position, count, pixels)])
    return Container("JPEG", b"".join(kept), find_orientation(exif, xmp))


def _has_color_information(marker: int, content: bytes) -> bool:
    return len(content) >= 12 and content.startswith({0xE0: b"JFIF\0", 0xEE: b"Adobe"}.get(marker, b"-"))


def _find_jpeg_end(data: bytes, position: int, count: int, pixels: int) -> int:
    """Return the end of the first image; refuse it if it has too many scans."""
    scans, most = 0, min(MAX_SCANS, max(_SCANS_AT_ANY_SIZE, _SCANNED_PIXELS // pixels))
    while found := _NEXT_MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            return position
        count += 1
        scans += marker == _SOS
        if scans > most:
            raise ImageError("unreadable", f"has more than {most} scans of {pixels:,} px; save it as a baseline JPEG")
        if count > _MAX_PARTS:
            raise _too_many("segments")
        if marker != _SOI:
            position += max(int.from_bytes(data[position : position + 2], "big"), 2)
    return len(data)


def _open_png(data: bytes, _: int) -> Container:
    """Keep the header, palette, pixels and valid transparency."""
    view, position, count, exif, xmp = memoryview(data), len(_PNG), 0, b"", b""
    kept: list[bytes | memoryview] = [_PNG]
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position, position + 12 + length
        position, count = end, count + 1
        if count > _MAX_PARTS:
            raise _too_many("chunks")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            kept.append(view[start:end])
            if kind == b"IEND":
                break
        elif kind == b"tRNS" and _is_sound_transparency(data, start, end):
            kept.append(view[start:end])
        elif kind == b"eXIf" and _has_right_checksum(data, start, end):
            exif = data[start + 8 : end - 4]
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and length <= _MAX_TEXT:
            keyword, __, text = data[start + 8 : end - 4].partition(b"\0")
            if keyword == b"XML:com.adobe.xmp" and not xmp:
                xmp = _unpack_text(kind, text)
            elif keyword == b"Raw profile type exif" and not exif:
                exif = _parse_raw_profile(_unpack_text(kind, text))
    return Container("PNG", b"".join(kept), find_orientation(exif, xmp))


def _has_right_checksum(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


_TRANSPARENCY_BYTES = {0: (2,), 2: (6,), 3: range(1, 257)}  # by colour type: grey, RGB, palette


def _is_sound_transparency(data: bytes, start: int, end: int) -> bool:
    color_type = data[25] if len(data) > 25 else -1  # the header is the first chunk
    return end - start - 12 in _TRANSPARENCY_BYTES.get(color_type, ()) and _has_right_checksum(data, start, end)


def _unpack_text(kind: bytes, text: bytes) -> bytes:
    packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    if kind == b"iTXt":  # flag, method, language, translated keyword
        text = text[2:].split(b"\0", 2)[-1]
    elif kind == b"zTXt":
        text = text[1:]
    try:
        return zlib.decompressobj().decompress(text, _MAX_TEXT) if packed else text
    except zlib.error:
        return b""


def _parse_raw_profile(text: bytes) -> bytes:
    """Decode the block that ImageMagick writes as hexadecimal digits below a heading."""
    try:
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""


def _open_webp(data: bytes, max_pixels: int) -> Container:
    """Drop profiles, metadata, their flags, and all frames of an animation but the first."""
    if data[8:12] != b"WEBP":
        raise ImageError("not_an_image", "a RIFF file, and no WebP in it")
    kept, position, count, exif, xmp, has_frame = list[bytes](), 12, 0, b"", b"", False
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        content, position, count = data[position:end], end, count + 1
        if count > _MAX_PARTS:
            raise _too_many("chunks")
        if kind == b"VP8X" and len(content) >= 18:
            width, height = (int.from_bytes(content[place : place + 3], "little") + 1 for place in (12, 15))
            check_size(width, height, max_pixels)
            kept.append(content[:8] + bytes([content[8] & 0x12]) + content[9:])
        elif kind in (b"VP8 ", b"VP8L"):
            check_size(*_read_webp_size(kind, content[8:18]), max_pixels)
            kept.append(content)
        elif kind in (b"ALPH", b"ANIM") or (kind == b"ANMF" and not has_frame):
            has_frame |= kind == b"ANMF"
            kept.append(content)
        elif kind == b"EXIF":
            exif = content[8 : 8 + length]
        elif kind == b"XMP " and length <= _MAX_TEXT:
            xmp = content[8 : 8 + length]
    body = b"WEBP" + b"".join(kept)
    whole = b"RIFF" + struct.pack("<I", len(body)) + body
    return Container("WEBP", whole, find_orientation(exif, xmp))


def _read_webp_size(kind: bytes, head: bytes) -> tuple[int, int]:
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF


_GIF_BLOCK = re.compile(rb"[!,;]")


def _open_gif(data: bytes, max_pixels: int) -> Container:
    """Keep the header, the palette, the last control extension before the first frame, and that frame."""
    if len(data) < 13:
        raise ImageError("truncated", "ends within its header")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    head, control, count = data[:position], b"", 0
    while (found := _GIF_BLOCK.search(data, position)) and found[0] == b"!":
        start = position = found.start()
        position += 2
        while size := int.from_bytes(data[position : position + 1], "big"):
            position, count = position + 1 + size, count + 1
            if count > _MAX_PARTS:
                raise _too_many("blocks before its first frame")
        position, count = position + 1, count + 1
        if data[start + 1 : start + 2] == b"\xf9":
            control = data[start:position]
    if not found or found[0] == b";" or len(data) < found.start() + 10:
        raise ImageError("truncated", "holds no frame")
    left, top, wide, high = struct.unpack_from("<HHHH", data, found.start() + 1)
    check_size(max(width, left + wide), max(height, top + high), max_pixels)
    return Container("GIF", b"".join((head, control, memoryview(data)[found.start() :])))


_BMP_COMPRESSIONS = {1: "RLE8", 2: "RLE4", 4: "JPEG", 5: "PNG"}


def _open_bmp(data: bytes, _: int) -> Container:
    if len(data) >= 34 and int.from_bytes(data[14:18], "little") != 12:  # OS/2's short header has no such field
        packed = _BMP_COMPRESSIONS.get(int.from_bytes(data[30:34], "little"))
        if packed:
            raise ImageError("unreadable", f"a BMP compressed with {packed} is not read; save it as PNG")
    return Container("BMP", data)


def _open_tiff(data: bytes, max_pixels: int) -> Container:
    return Container("TIFF", open_tiff(data, max_pixels=max_pixels), find_orientation(data))


_OPENERS: tuple[tuple[tuple[bytes, ...], Callable[[bytes, int], Container]], ...] = (
    ((b"\xff\xd8\xff",), _open_jpeg),
    ((_PNG,), _open_png),
    ((b"GIF87a", b"GIF89a"), _open_gif),
    ((b"BM",), _open_bmp),
    ((b"II*\0", b"MM\0*"), _open_tiff),
    ((b"RIFF",), _open_webp),
)
