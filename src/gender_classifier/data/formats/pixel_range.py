"""Reduce samples of more than 8 bits to the 8 bits a person would see, or refuse them.

16-bit samples are read as 16 bits, or as 12 bits if none exceeds 4,095, as cameras and scanners store them. The white
level of floats and of 32-bit or signed integers is unknown: it is taken to be the least of 1 (floats only), 255, 4,095
and 65,535 that no sample exceeds. Negative and larger samples, NaN and infinity are refused, and so is an image that
is nearly all black or white in 8 bits, which had another scale.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gender_classifier.errors import ImageError

BAND_PIXELS = 2**20
"""Pixels converted at a time, to keep intermediate images small."""

_INTEGER_WHITES = (255, 4095, 65535)
_WHITES = {"F": (1, *_INTEGER_WHITES), "I": _INTEGER_WHITES}
_WHITES_16_BIT = (4095, 65535)

# Levels of 256: below an eighth of white, nothing is visible to people or to the model.
_DARK, _LIGHT = 32, 223
_SPECKS = 0.001  # share of pixels that may differ: hot pixels, dust

_PHOTOMETRIC, _BITS_PER_SAMPLE = 262, 258  # TIFF tags


def is_deep(image: Image.Image) -> bool:
    """Return True for an image with a single channel of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert a deep image to mode ``L``; a transparent grey becomes black.

    Raises:
        ImageError: ``unreadable``: its samples fit none of the known scales.
    """
    white = _find_white(image)
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow inverts 8 bits only
    transparent = image.info.get("transparency")
    result = Image.new("L", image.size)
    for top, band in _read_bands(image):
        values = white - band if inverted else band
        levels = np.rint(values * (255 / white)).astype(np.uint8)
        if isinstance(transparent, int):
            levels[band == transparent] = 0
        result.paste(Image.fromarray(levels), (0, top))
    check_visible(result, f"{_describe(image)} of which {white:,} is white")
    return result


def check_visible(image: Image.Image, what: str) -> None:
    """Refuse an image that is nearly all black or nearly all white.

    Args:
        image: of any 8-bit mode; alpha is ignored.
        what: description of its samples, for the message.

    Raises:
        ImageError: ``unreadable``.
    """
    is_light = bool((_shares_up_to(image, _LIGHT) <= _SPECKS).all())
    shade = "black" if is_dark(image) else "white" if is_light else None
    if shade:
        raise ImageError(
            "unreadable", f"nearly all {shade} when read as {what}; convert it to 8 bits a sample and try again"
        )


def is_dark(image: Image.Image) -> bool:
    """Return True if hardly any pixel of an 8-bit image is lighter than an eighth of white in any channel."""
    return bool((_shares_up_to(image, _DARK - 1) >= 1 - _SPECKS).all())


def _shares_up_to(image: Image.Image, level: int) -> NDArray[np.float64]:
    """Return the share of pixels of at most ``level`` in each colour channel, float64 (C,)."""
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    counts = np.array(plain.histogram(), dtype=np.float64).reshape(-1, 256)
    shares: NDArray[np.float64] = counts[:, : level + 1].sum(axis=1) / counts.sum(axis=1)
    return shares


def split_bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield bands of whole rows from the top, each with the number of its first row."""
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def has_deep_channels(image: Image.Image, data: bytes) -> bool:
    """Return True if the file's header states more than 8 bits per sample, of which Pillow keeps 8 in colour images.

    Args:
        image: as Pillow opened it.
        data: the file's content.
    """
    if image.format == "PNG":
        depth = data.find(b"IHDR") + 12
        return data[depth : depth + 1] == b"\x10"
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    return isinstance(bits, tuple) and any(isinstance(depth, int) and depth > 8 for depth in bits)


def _find_white(image: Image.Image) -> int:
    low, high = np.inf, -np.inf
    for _, band in _read_bands(image):
        if not np.isfinite(band).all():
            raise ImageError("unreadable", f"has {_describe(image)} that are NaN or infinite; save it with 8 bits each")
        low, high = min(low, float(band.min())), max(high, float(band.max()))
    whites = _WHITES.get(image.mode, _WHITES_16_BIT)
    white = next((white for white in whites if high <= white), None)
    if low < 0 or white is None:
        raise ImageError(
            "unreadable",
            f"has {_describe(image)} from {low:g} to {high:g}, and what is white is unknown below 0 and above "
            f"{whites[-1]:,}; convert it to 8 bits a sample and try again",
        )
    return white


def _describe(image: Image.Image) -> str:
    return {"F": "float samples", "I": "integer samples"}.get(image.mode, "16-bit samples")


def _read_bands(image: Image.Image) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield bands as float64 (rows, width), each with the number of its first row."""
    return ((top, np.asarray(band, dtype=np.float64)) for top, band in split_bands(image))
