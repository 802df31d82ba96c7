"""Image files as containers: formats told by their first bytes, and pixels without the metadata around them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_ANCILLARY = 0x20  # bit of a chunk's first letter

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"jxl ": "JPEG XL", b"jp2 ": "JPEG 2000", b"jpx ": "JPEG 2000",
           b"crx ": "Canon CR3 raw", **dict.fromkeys(_HEIF_BRANDS, "HEIC")}  # fmt: skip
_SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS": "Photoshop PSD",
    b"%PDF": "PDF",
    b"FUJIFILMCCD-RAW": "Fujifilm raw",
}

# TIFF tags that say where and how the pixels are stored; then those that may hold the orientation.
_TIFF_PIXEL_TAGS = frozenset((256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324,
                              325, 338, 339, 347, 529, 530, 531, 532))  # fmt: skip
_TIFF_ORIENTATION = 274


def name_unread_format(data: bytes) -> str | None:
    """Return the name of a format that is known but not decoded here, such as HEIC, whatever the file is called."""
    if data[4:8] == b"ftyp":
        size = min(max(int.from_bytes(data[:4], "big"), 16), 256)
        brands = [data[8:12], *(data[start : start + 4] for start in range(16, size, 4))]
        # A HEIC and an AVIF file both name the brand mif1; the special ones decide.
        named = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return next((name for name in named if name != "HEIC"), named[0] if named else "MP4 video")
    return next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)


def strip_metadata(data: bytes) -> Iterator[bytes]:
    """Yield ``data`` without text, colour profiles and the like; then without its EXIF orientation too.

    For files that the decoder refuses though their pixels may be sound. Nothing is unpacked, and what is yielded is
    never longer than ``data``. A file without metadata, or of a format that is not known here, yields nothing.
    """
    strip = next((strip for start, strip in _STRIPS.items() if data.startswith(start)), None)
    if strip is None:
        return
    last = data
    for with_orientation in (True, False):
        stripped = strip(data, with_orientation)
        if stripped != last:
            yield stripped
        last = stripped


def _strip_png(data: bytes, with_orientation: bool) -> bytes:
    """Keep critical chunks, and those about transparency and orientation whose checksum is right."""
    kept, position = [_PNG], len(_PNG)
    wanted = (b"tRNS", b"eXIf") if with_orientation else ()
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if not kind[0] & _PNG_ANCILLARY or (kind in wanted and _has_right_checksum(data, position, end)):
            kept.append(data[position:end])
        if kind == b"IEND":
            break
        position = end
    return b"".join(kept)


def _has_right_checksum(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _strip_jpeg(data: bytes, with_orientation: bool) -> bytes:
    """Drop comments and application segments before the scan; Adobe's says how colours are stored."""
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == 0xDA:
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if not _is_jpeg_metadata(marker, data[position + 4 : end], with_orientation):
            kept.append(data[position:end])
        position = end
    return b"".join((*kept, data[position:]))


def _is_jpeg_metadata(marker: int, content: bytes, with_orientation: bool) -> bool:
    if marker == 0xEE:
        return len(content) < 12 or not content.startswith(b"Adobe")
    if marker == 0xE1 and with_orientation:
        return not content.startswith(b"Exif\0\0")
    return marker == 0xFE or 0xE0 <= marker <= 0xEF


def _strip_webp(data: bytes, with_orientation: bool) -> bytes:
    """Drop the chunks of profiles and metadata, and the flags that announce them."""
    wanted: Collection[bytes] = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
    kept, position = list[bytes](), 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        content = data[position:end]
        if kind == b"VP8X" and len(content) > 8:
            flags = content[8] & (0x1A if with_orientation else 0x12)
            kept.append(content[:8] + bytes([flags]) + content[9:])
        elif kind in wanted or (kind == b"EXIF" and with_orientation and 0 < length <= len(content) - 8):
            kept.append(content)
        position = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _strip_tiff(data: bytes, with_orientation: bool) -> bytes:
    """Leave in the first directory the tags that say where and how the pixels are stored."""
    order = "<" if data.startswith(b"II") else ">"
    wanted = _TIFF_PIXEL_TAGS | ({_TIFF_ORIENTATION} if with_orientation else set())
    start = int.from_bytes(data[4:8], "little" if order == "<" else "big")
    count = struct.unpack_from(order + "H", data, start)[0] if start + 2 <= len(data) else 0
    entries = [data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if len(entry) == 12 and struct.unpack(order + "H", entry[:2])[0] in wanted]
    if len(kept) == count:
        return data
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + directory + data[start + len(directory) :]


_STRIPS: dict[bytes, Callable[[bytes, bool], bytes]] = {
    _PNG: _strip_png,
    b"\xff\xd8": _strip_jpeg,
    b"RIFF": _strip_webp,
    b"II*\0": _strip_tiff,
    b"MM\0*": _strip_tiff,
}
