"""Bytes to pixels: the one way in which this project decodes and resizes an image, in training and in use."""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gender_classifier.data.formats.image_files import Container, check_size, open_container
from gender_classifier.data.formats.pixel_range import (
    BAND_PIXELS,
    check_visible,
    has_deep_channels,
    is_dark,
    is_deep,
    to_eight_bits,
)
from gender_classifier.errors import ImageError

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what makes an image upright; 1 is upright, and needs no copy."""

MAX_BYTES_PER_PIXEL = 20
"""What decoding may take at its peak, its own copies included; ``tests/test_fuzz_images.py`` measures it."""

_BAND_PIXELS = BAND_PIXELS

# 256 bits: the 16 x 16 lowest frequencies of a 64 x 64 grey image.
_HASH_SIDE, _GREY_SIDE = 16, 64


def decode(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode a whole image (of an animation, its first frame), upright as its EXIF orientation says.

    Metadata is no reason to refuse an image: text, colour profiles and other parts around the pixels are cut off
    unread. What decodes slowly, or takes more memory than its pixels, is refused by name: see
    :mod:`~gender_classifier.data.formats.image_files`.

    Args:
        data: the file's content, in one of :data:`~gender_classifier.data.formats.image_files.FORMATS`.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        The image in its own mode; in mode ``L``, if its one channel has more than 8 bits (see
        :mod:`~gender_classifier.data.pixel_range`).

    Raises:
        ImageError: for any bytes that are not one whole image with something to see; no other error comes out.
    """
    if not data:
        raise ImageError("empty", "the file is empty")
    container = open_container(data, max_pixels=max_pixels)
    image = _load(container, max_pixels)
    turn = _UPRIGHT.get(container.orientation)
    with _only_image_errors(image):
        image = _limit_depth(image, container.data)
        return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: more than 8 bits are scaled to 8 bits, transparency is laid on black.

    Raises:
        ImageError: there is no way from its mode to RGB, or nothing to see in the result.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    with _only_image_errors(image):
        return _convert(image)


def to_array(data: bytes, size: int, *, max_pixels: int, min_side: int = 1) -> NDArray[np.uint8]:
    """Turn an image into what the model takes: uint8 (size, size, 3), RGB.

    Resized with Pillow's antialiased bilinear filter, the aspect ratio let go, as torchvision's
    ``Resize((size, size))`` does to an image.

    Beside ``data`` and a copy of it, this needs at most :data:`MAX_BYTES_PER_PIXEL` for each pixel of the image, so
    with ``max_pixels`` of 50 million no more than 1 GB; what the header promises is refused before anything of that
    size is touched.

    Raises:
        ImageError: as :func:`decode`, :func:`check_side` and :func:`to_rgb`.
    """
    image = decode(data, max_pixels=max_pixels)
    check_side(image, min_side)
    return to_square(to_rgb(image), size)


def check_side(image: Image.Image, min_side: int) -> None:
    """Refuse an image that ``verify`` rejects as too small: the model has seen none like it.

    Raises:
        ImageError: a side is shorter than ``min_side`` px.
    """
    if min(image.size) < min_side:
        raise ImageError(
            "too_small", f"{image.width} x {image.height} px are too small; each side needs at least {min_side} px"
        )


def to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize an RGB image as :func:`to_array` does: uint8 (size, size, 3)."""
    try:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    except MemoryError:
        raise ImageError("too_large", _no_memory(image)) from None


def perceptual_hash(image: Image.Image) -> str:
    """Return 256 bits as 64 hex digits that stay nearly the same under rescaling and recompression.

    The pHash of Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010): the lowest
    16 x 16 coefficients of the DCT of the grey image at 64 x 64, each compared with their median. The cosines
    are rounded to integers, so that every machine computes the same bits.
    """
    grey = image.convert("L").resize((_GREY_SIDE, _GREY_SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey, dtype=np.float64)
    # Whole numbers below 2**53 are exact in float64 in any order of summation, and quicker than int64.
    low = (_COSINES @ pixels @ _COSINES.T).ravel()
    middle = low.size // 2
    median = np.partition(low, (middle - 1, middle))[middle - 1 : middle + 1].mean()
    bits = low > median
    return np.packbits(bits).tobytes().hex()


def _integer_cosines() -> NDArray[np.float64]:
    frequency, place = np.arange(_HASH_SIDE)[:, None], np.arange(_GREY_SIDE)[None, :]
    return np.round(4096 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _GREY_SIDE)))


_COSINES = _integer_cosines()


def _load(container: Container, max_pixels: int) -> Image.Image:
    image = _open(container)
    check_size(*image.size, max_pixels)
    try:
        image.load()
    except MemoryError:
        raise ImageError("too_large", _no_memory(image)) from None
    except Exception as error:
        reason = "truncated" if _is_truncation(error) else "unreadable"
        raise ImageError(reason, f"cannot be decoded to its end ({_first_line(error)})") from None
    return image


def _open(container: Container) -> Image.Image:
    try:
        return Image.open(io.BytesIO(container.data), formats=(container.format,))
    except UnidentifiedImageError:
        raise ImageError("not_an_image", f"begins as {container.format} does, and is none") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", _first_line(error)) from None
    except MemoryError:
        raise ImageError("too_large", f"its {len(container.data):,} bytes need more memory than there is") from None
    except Exception as error:
        raise ImageError("unreadable", f"its header is damaged ({_first_line(error)})") from None


@contextmanager
def _only_image_errors(image: Image.Image) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("too_large", _no_memory(image)) from None
    except Exception as error:
        raise ImageError("unreadable", f"mode {image.mode} cannot be made RGB ({_first_line(error)})") from None


def _limit_depth(image: Image.Image, data: bytes) -> Image.Image:
    """Bring one channel of more than 8 bits to 8, and check colours that Pillow has brought there."""
    if is_deep(image):
        return to_eight_bits(image)
    if has_deep_channels(image, data):
        image.info.pop("transparency", None)  # in 16 bits: no 8-bit pixel compares with it
        check_visible(image, "16-bit samples")
    return image


def _convert(image: Image.Image) -> Image.Image:
    if is_deep(image):
        return to_eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        result = _in_bands(image, _lay_on_black)
        if is_dark(result) and not _is_opaque(image):
            raise ImageError("unreadable", "transparent, with nothing to see on black; save it without transparency")
        return result
    return image.convert("RGB")


def _is_opaque(image: Image.Image) -> bool:
    alpha = image.convert("RGBA").getchannel("A")
    return alpha.histogram()[255] == image.width * image.height


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert bands of whole rows: the result is that of the whole image, and what lies between stays small."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    result = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        result.paste(convert(image.crop((0, top, width, min(top + rows, height)))), (0, top))
    return result


def _lay_on_black(band: Image.Image) -> Image.Image:
    rgba = band.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")


def _no_memory(image: Image.Image) -> str:
    return f"{image.width} x {image.height} px need more memory than there is"


def _is_truncation(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (EOFError, struct.error)) or "truncated" in text or "unexpected end" in text


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
