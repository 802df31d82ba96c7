"""Decompress Deflate64, which Windows Explorer uses above 2 GB, with the package inflate64."""

from typing import IO

METHOD = 9
"""Number of this compression method in a zip."""

# A match of up to 65,538 bytes takes about 18 bits: 256 bytes unpack to 8 MB at most.
_STEP = 256


def is_available() -> bool:
    """Return True if the package inflate64 is installed."""
    try:
        import inflate64  # noqa: F401, PLC0415  optional
    except ImportError:
        return False
    return True


def inflate(compressed: IO[bytes], size: int) -> bytes:
    """Decompress ``compressed``; stop a little above ``size`` bytes if there are more.

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
