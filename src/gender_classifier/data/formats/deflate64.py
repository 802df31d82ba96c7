"""Deflate64, in which Windows Explorer packs what is larger than 2 GB: read through the package inflate64."""

from typing import IO

METHOD = 9
"""Number of the compression method in a zip."""

# A match of Deflate64 is up to 65,538 bytes long and takes some 18 bits: 256 bytes become 8 MB at most.
_STEP = 256


def is_available() -> bool:
    """Return True if the package inflate64 is installed."""
    try:
        import inflate64  # noqa: F401, PLC0415  optional
    except ImportError:
        return False
    return True


def inflate(compressed: IO[bytes], size: int) -> bytes:
    """Return what ``compressed`` unpacks to, or a little more than ``size`` bytes of it where that is less.

    Raises:
        ValueError: the data is damaged or ends early.
        ImportError: the package is not installed.
    """
    import inflate64  # noqa: PLC0415  optional

    inflater, data = inflate64.Inflater(), bytearray()
    while not inflater.eof and len(data) <= size:
        step = compressed.read(_STEP)
        if not step:
            raise ValueError("the compressed data ends early")
        data += inflater.inflate(step)
    return bytes(data)
