"""Byte ranges of a zip: members that share bytes, and the size of its directory."""

import struct
import zipfile
from collections.abc import Iterable
from typing import IO

MAX_DIRECTORY_BYTES = 128 * 2**20
"""Enough for a million members with names of 80 bytes; zipfile needs ten times as much memory."""

_HEADER_BYTES = 30  # local header, before the name
_END, _END_BYTES, _COMMENT_BYTES = b"PK\5\6", 22, 2**16 - 1
_LOCATOR, _LOCATOR_BYTES, _END64, _END64_BYTES = b"PK\6\7", 20, b"PK\6\6", 56


def find_shared(members: Iterable[zipfile.ZipInfo], directory: int) -> dict[int, str]:
    """Return the members that share bytes with another member or with the directory.

    A small file unpacks to a huge one through many members of one compressed block. Without them, all members together
    unpack to at most 1,032 times the file's size, the limit of Deflate.

    Args:
        members: of one archive.
        directory: byte at which the directory begins.

    Returns:
        ``id`` of a member to the name of the other one; an empty text for the directory.
    """
    shared, last, reached = dict[int, str](), None, 0
    for info in sorted(members, key=lambda info: info.header_offset):
        # A lower bound: the local header may have extra fields.
        head = _HEADER_BYTES + len(info.orig_filename.encode("utf-8", "replace"))
        end = info.header_offset + head + info.compress_size
        if last is not None and info.header_offset < reached:
            shared[id(info)] = last.orig_filename
            shared.setdefault(id(last), info.orig_filename)
        elif info.header_offset < 0 or info.header_offset + _HEADER_BYTES + info.compress_size > directory:
            shared[id(info)] = ""
        if end > reached:
            last, reached = info, end
    return shared


def measure_directory(file: IO[bytes]) -> int:
    """Return the size of the directory in bytes as the zip states it; 0 if it does not.

    The record is searched for in the same way as zipfile does.
    """
    length = file.seek(0, 2)
    start = max(0, length - _END_BYTES - _COMMENT_BYTES - _LOCATOR_BYTES - _END64_BYTES)
    file.seek(start)
    tail = file.read()
    place = len(tail) - _END_BYTES
    if not (place >= 0 and tail.startswith(_END, place) and tail.endswith(b"\0\0")):
        place = tail.rfind(_END)
    if place < 0 or place + _END_BYTES > len(tail):
        return 0
    (size,) = struct.unpack_from("<I", tail, place + 12)
    locator = place - _LOCATOR_BYTES
    record = locator - _END64_BYTES
    if record >= 0 and tail.startswith(_LOCATOR, locator) and tail.startswith(_END64, record):
        (size,) = struct.unpack_from("<Q", tail, record + 40)
    return int(size)
