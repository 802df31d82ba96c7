"""Decode and resize images: the only implementation, for training and prediction alike."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gender_classifier.data.formats.image_files import Container, check_size, open_container
from gender_classifier.data.formats.pixel_range import (
    check_visible,
    has_deep_channels,
    is_dark,
    is_deep,
    split_bands,
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
"""EXIF orientation to the transposition that makes an image upright; 1 needs none."""

MAX_BYTES_PER_PIXEL = 20
"""Peak memory of decoding, including copies; ``tests/data/test_fuzz_images.py`` measures it."""

# 256 bits: the 16 x 16 lowest frequencies of a 64 x 64 grey image.
_HASH_SIDE, _GREY_SIDE = 16, 64
_ANGLES = np.pi * np.arange(_HASH_SIDE)[:, None] * (2 * np.arange(_GREY_SIDE) + 1) / (2 * _GREY_SIDE)
_COSINES = np.round(4096 * np.cos(_ANGLES))


class Crop(NamedTuple):
    """Which images lose their sides before they are resized to a square, and how much of them.

    Tight crops of faces are higher than wide, and a square one shows a face narrower than those that the model was
    trained on, with more beside it.
    """

    above: float
    """Width over height; narrower images are left as they are."""
    aspect: float
    """Width over height of what is left of wider ones, their middle."""


def decode(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode an image completely (the first frame of an animation) and turn it upright by its EXIF orientation.

    Metadata never makes an image invalid: text, colour profiles and other parts around the pixels are cut off unread.
    Features that decode slowly, or need more memory than the pixels, are refused; see
    :mod:`~gender_classifier.data.formats.image_files`.

    Args:
        data: content of a file in one of :data:`~gender_classifier.data.formats.image_files.FORMATS`.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        The image in its mode; in mode ``L`` if its only channel has more than 8 bits (see
        :mod:`~gender_classifier.data.formats.pixel_range`).

    Raises:
        ImageError: the bytes are not one complete image with visible content. No other error is raised.
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
    """Convert to RGB: deep samples are scaled to 8 bits, transparency is laid on black.

    Raises:
        ImageError: its mode cannot be converted, or the result has no visible content.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    with _only_image_errors(image):
        return _convert(image)


def to_array(
    data: bytes, size: int, *, max_pixels: int, min_side: int = 1, crop: Crop | None = None
) -> NDArray[np.uint8]:
    """Turn an image into the input of the model: uint8 (size, size, 3), RGB.

    The image is resized with Pillow's antialiased bilinear filter, without keeping its aspect ratio, like torchvision's
    ``Resize((size, size))``. ``crop``, if given, cuts off the sides of wide images before.

    Besides ``data`` and a copy of it, this needs at most :data:`MAX_BYTES_PER_PIXEL` per pixel of the image: 1 GB for
    ``max_pixels`` of 50 million. The size in the header is checked before that memory is allocated.

    Raises:
        ImageError: see :func:`decode`, :func:`check_side` and :func:`to_rgb`.
    """
    image = decode(data, max_pixels=max_pixels)
    check_side(image, min_side)
    image = crop_wide(image, crop)  # lets go of the sides before they cost memory
    return to_square(to_rgb(image), size)


def crop_wide(image: Image.Image, crop: Crop | None) -> Image.Image:
    """Cut the same width off both sides of an image that is wider than ``crop`` says; None cuts nothing.

    Raises:
        ImageError: there is not enough memory for the copy.
    """
    # The quotient, as it is measured: a product may be less than the width that it was made of.
    if crop is None or image.width / image.height <= crop.above:
        return image
    width = max(1, round(image.height * crop.aspect))
    left = (image.width - width) // 2
    with _only_image_errors(image):
        return image.crop((left, 0, left + width, image.height))


def check_side(image: Image.Image, min_side: int) -> None:
    """Refuse an image that ``verify`` would reject as too small, since the model was not trained on such images.

    Raises:
        ImageError: a side is shorter than ``min_side`` px.
    """
    if min(image.size) < min_side:
        raise ImageError(
            "too_small", f"{image.width} x {image.height} px are too small; each side needs at least {min_side} px"
        )


def to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize an RGB image to uint8 (size, size, 3); see :func:`to_array`."""
    try:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    except MemoryError:
        raise ImageError("too_large", _no_memory(image)) from None


def shrink_grey(grey: Image.Image) -> NDArray[np.float64]:
    """Resize a grey image to float64 (64, 64) of whole grey levels, without keeping its aspect ratio."""
    return np.asarray(grey.resize((_GREY_SIDE, _GREY_SIDE), Image.Resampling.BILINEAR), dtype=np.float64)


def perceptual_hash(pixels: NDArray[np.float64]) -> str:
    """Return a 256-bit hash, as 64 hex digits, that rescaling and recompression barely change.

    The pHash of Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010): the lowest
    16 x 16 DCT coefficients of the grey image at 64 x 64, each compared with their median. The cosines are rounded
    to integers, so that every machine computes the same bits.

    Args:
        pixels: from :func:`shrink_grey`.
    """
    # Integers below 2**53 are exact in float64 in any order of summation, and faster than int64.
    low = (_COSINES @ pixels @ _COSINES.T).ravel()
    middle = low.size // 2
    ordered = np.partition(low, (middle - 1, middle))
    return np.packbits(low > (ordered[middle - 1] + ordered[middle]) / 2).tobytes().hex()


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
    """Reduce one deep channel to 8 bits, and check deep colours, which Pillow has reduced already."""
    if is_deep(image):
        return to_eight_bits(image)
    if has_deep_channels(image, data):
        image.info.pop("transparency", None)  # a 16-bit value, which matches no 8-bit pixel
        check_visible(image, "16-bit samples")
    return image


def _convert(image: Image.Image) -> Image.Image:
    if is_deep(image):
        return to_eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        result = Image.new("RGB", image.size)
        for top, band in split_bands(image):
            result.paste(_lay_on_black(band), (0, top))
        if is_dark(result) and not _is_opaque(image):
            raise ImageError("unreadable", "transparent, with nothing to see on black; save it without transparency")
        return result
    return image.convert("RGB")


def _is_opaque(image: Image.Image) -> bool:
    alpha = image.convert("RGBA").getchannel("A")
    return alpha.histogram()[255] == image.width * image.height


def _lay_on_black(band: Image.Image) -> Image.Image:
    rgba = band.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")


def _no_memory(image: Image.Image) -> str:
    return f"{image.width} x {image.height} px need more memory than there is"


def _is_truncation(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (EOFError, struct.error)) or "truncated" in text or "unexpected end" in text


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
