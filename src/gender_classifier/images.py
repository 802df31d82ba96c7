"""Bytes to pixels: the one way in which this project decodes and resizes a picture, in training and in use."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gender_classifier.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is decoded; Pillow's many other readers are left alone."""

# 256 bits: the 16 x 16 lowest frequencies of a 64 x 64 grey picture.
_HASH_SIDE, _GREY_SIDE = 16, 64


def decode(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode a whole picture (of an animation, its first frame), upright as its EXIF orientation says.

    Args:
        data: the file's content, in one of :data:`FORMATS`.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        The picture in its own mode.

    Raises:
        ImageError: for any bytes that are not one whole picture; no other error comes out.
    """
    if not data:
        raise ImageError("empty", "the file is empty")
    image = _open(data)
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} x {height} px is more than {max_pixels} px")
    try:
        image.load()
    except Exception as error:
        reason = "truncated" if _is_truncation(error) else "unreadable"
        raise ImageError(reason, f"cannot be decoded to its end ({_first_line(error)})") from None
    return _upright(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: 16-bit greys are scaled to 8 bits, transparency is laid on black."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        # Pillow opens 16-bit greys as I or I;16, and would clip them at 255.
        scale = 255 / 65535 if values.max(initial=0) > 255 else 1
        return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def to_array(data: bytes, size: int, *, max_pixels: int) -> NDArray[np.uint8]:
    """Turn a picture into what the model takes: uint8 (size, size, 3), RGB.

    Resized with Pillow's antialiased bilinear filter, the aspect ratio let go, as torchvision's
    ``Resize((size, size))`` does to a picture.

    Raises:
        ImageError: as :func:`decode`.
    """
    image = to_rgb(decode(data, max_pixels=max_pixels))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def perceptual_hash(image: Image.Image) -> str:
    """Return 256 bits as 64 hex digits that stay nearly the same under rescaling and recompression.

    The pHash of Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010): the lowest
    16 x 16 coefficients of the DCT of the grey picture at 64 x 64, each compared with their median. The cosines
    are rounded to integers, so that every machine computes the same bits.
    """
    grey = image.convert("L").resize((_GREY_SIDE, _GREY_SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey, dtype=np.float64)
    # Whole numbers below 2**53 are exact in float64 in any order of summation, and quicker than int64.
    low = _COSINES @ pixels @ _COSINES.T
    bits = low.ravel() > np.median(low)
    return np.packbits(bits).tobytes().hex()


def _integer_cosines() -> NDArray[np.float64]:
    frequency, place = np.arange(_HASH_SIDE)[:, None], np.arange(_GREY_SIDE)[None, :]
    return np.round(4096 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _GREY_SIDE)))


_COSINES = _integer_cosines()


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError("not_an_image", f"not a picture in a format that is read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", _first_line(error)) from None
    except Exception as error:
        raise ImageError("unreadable", f"its header is damaged ({_first_line(error)})") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(0x0112, 1) == 1:  # the common case, without a copy
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        return image  # damaged EXIF says nothing about orientation; the pixels are whole


def _is_truncation(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (EOFError, struct.error)) or "truncated" in text or "unexpected end" in text


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
