"""Check a TIFF's first directory and reduce it to the tags that locate and describe pixels."""

import struct
from typing import NamedTuple

from gender_classifier.errors import ImageError

_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _PLANAR = 256, 257, 259, 277, 284
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
_PLACES = frozenset((273, 279, 324, 325))  # one value per strip or tile

_SHORT, _LONG = 3, 4
_SIZES = {_SHORT: 2, _LONG: 4}
_OTHER_SIZES = {347: {7: 1, 1: 1}, 529: {5: 8}, 532: {5: 8, **_SIZES}}
"""Tags of other types than SHORT and LONG: JPEG tables, YCbCr coefficients and reference levels."""

_TAGS = frozenset((_WIDTH, _HEIGHT, 258, _COMPRESSION, 262, 266, _SAMPLES, _ROWS_PER_STRIP, _PLANAR, 292, 293, 317,
                   320, _TILE_WIDTH, _TILE_HEIGHT, 338, 339, 530, 531, *_PLACES, *_OTHER_SIZES))  # fmt: skip
_SINGLE = frozenset((_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _ROWS_PER_STRIP, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT))

_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946))  # none, fax, LZW, JPEG, Deflate, PackBits
_REFUSED = {6: "old-style JPEG", 32809: "ThunderScan", 34676: "SGI LogL", 34677: "SGI LogLuv", 34925: "LZMA",
            50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"}  # fmt: skip

_MAX_TAG_BYTES = 2**20  # a 16-bit palette, the longest legitimate one, has 393,216 bytes
_MAX_SAMPLES = 8
_SMALL_TILE = 2**20  # px; a tile may be larger than a small image
_MANY_PLACES = 4096  # up to this many strips or tiles are tolerated in any image


class _Entry(NamedTuple):
    kind: int
    number: int
    raw: bytes


def open_tiff(data: bytes, *, max_pixels: int) -> bytes:
    """Return ``data`` with one directory of only the tags in :data:`_TAGS`.

    Pillow and libtiff read duplicate tags and unusual types differently. Such files are refused, so that both see what
    is checked here.

    Raises:
        ImageError: the directory is truncated or malformed, or states something refused.
    """
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", data.ljust(8, b"\0"), 4)
    entries = _read_directory(data, order, start)
    values = {tag: _read_value(order, entry) for tag, entry in entries.items() if tag in _SINGLE}
    _check_values(values, max_pixels)
    _check_places(values, entries)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entry.raw for entry in entries.values()) + bytes(4)
    view = memoryview(data)
    return b"".join((view[:start], directory, view[start + len(directory) :]))


def _read_directory(data: bytes, order: str, start: int) -> dict[int, _Entry]:
    if start < 8 or start + 2 > len(data):
        raise ImageError("truncated", f"has no directory at byte {start:,}, where its header says")
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = dict[int, _Entry]()
    for place in range(start + 2, start + 2 + 12 * count, 12):
        raw = data[place : place + 12]
        if len(raw) < 12:
            raise ImageError("truncated", "ends within its directory")
        tag, kind, number, offset = struct.unpack(order + "HHII", raw)
        if tag not in _TAGS:
            continue
        if tag in entries:
            raise ImageError("unreadable", f"states the tag {tag} twice; save it again with another program")
        _check_entry(tag, kind, number, offset, len(data))
        entries[tag] = _Entry(kind, number, raw)
    return entries


def _check_entry(tag: int, kind: int, number: int, offset: int, length: int) -> None:
    size = _OTHER_SIZES.get(tag, _SIZES).get(kind)
    if size is None or number < 1 or (tag in _SINGLE and number != 1):
        raise ImageError(
            "unreadable", f"the tag {tag} has {number:,} values of type {kind}; save it again with another program"
        )
    if size * number > _MAX_TAG_BYTES and tag not in _PLACES:
        raise ImageError("unreadable", f"the tag {tag} has {size * number:,} bytes; save it again with another program")
    if size * number > 4 and offset + size * number > length:
        raise ImageError("truncated", f"ends before the values of its tag {tag}")


def _read_value(order: str, entry: _Entry) -> int:
    return int(struct.unpack_from(order + ("H" if entry.kind == _SHORT else "I"), entry.raw, 8)[0])


def _check_values(values: dict[int, int], max_pixels: int) -> None:
    width, height = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} x {height} px is more than {max_pixels} px")
    compression = values.get(_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        name = _REFUSED.get(compression, "an unknown method")
        raise ImageError(
            "unreadable", f"a TIFF compressed with {name} ({compression}) is not read; save it with LZW, or as PNG"
        )
    if values.get(_SAMPLES, 1) > _MAX_SAMPLES:
        raise ImageError("unreadable", f"has {values[_SAMPLES]:,} samples a pixel; save it as PNG")
    tile_width, tile_height = values.get(_TILE_WIDTH, 1), values.get(_TILE_HEIGHT, 1)
    if tile_width * tile_height > max(width * height, _SMALL_TILE):
        # libtiff unpacks whole tiles, even if the image shows little of them.
        raise ImageError(
            "too_large", f"its tiles of {tile_width} x {tile_height} px are larger than the image, {width} x {height}"
        )


def _check_places(values: dict[int, int], entries: dict[int, _Entry]) -> None:
    """Refuse more strips or tiles than the image needs: Pillow creates an object for each."""
    width, height = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    across = values.get(_TILE_WIDTH, width) or 1
    down = values.get(_TILE_HEIGHT, values.get(_ROWS_PER_STRIP, height)) or 1
    layers = values.get(_SAMPLES, 1) if values.get(_PLANAR) == 2 else 1
    expected = max(-(-width // across) * -(-height // down) * layers, _MANY_PLACES)
    number = max((entries[tag].number for tag in _PLACES if tag in entries), default=0)
    if number > expected:
        raise ImageError("unreadable", f"lists {number:,} strips or tiles, more than its pixels fill; save it as PNG")
