"""Read the EXIF orientation and no other metadata."""

import re
import struct

_ORIENTATION = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_INTEGERS = {3: "H", 4: "I"}  # TIFF types
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def find_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return the orientation, 1 to 8; 1 (upright) without any. EXIF wins over XMP.

    Args:
        exif: an EXIF block, with or without its ``Exif`` header.
        xmp: an XMP packet.
    """
    found = _find_in_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None:
        match = _IN_XMP.search(xmp)
        found = int(match[1]) if match else 1
    return found if 1 <= found <= 8 else 1


def _find_in_exif(exif: bytes) -> int | None:
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", exif, place)
        if tag == _ORIENTATION:
            if kind not in _INTEGERS or number != 1:
                return 1  # not stated as a number
            return int(struct.unpack_from(order + _INTEGERS[kind], exif, place + 8)[0])
    return None
