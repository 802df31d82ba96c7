"""More than 8 bits become what a person would see, or are refused; an image never turns into a black square."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from conftest import draw_pixels
from fuzz_images import chunk, save
from PIL import Image

from gender_classifier.data.images import decode, to_array, to_rgb
from gender_classifier.errors import ImageError

GREY = np.asarray(Image.fromarray(draw_pixels(3, 40, 48)).convert("L"))
COLOUR = draw_pixels(3, 40, 48)


def tiff(
    samples: np.ndarray, *, order: str = "<", format: int = 1, photometric: int | None = None, extra: int | None = None
) -> bytes:
    """Return an uncompressed TIFF; written by hand, for what Pillow cannot write."""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    raw = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    tags = {256: samples.shape[1], 257: samples.shape[0], 258: samples.itemsize * 8, 259: 1,
            262: photometric if photometric is not None else 1 if channels < 3 else 2, 277: channels,
            278: samples.shape[0], 279: len(raw), 339: format}  # fmt: skip
    tags |= {273: 0} | ({338: extra} if extra is not None else {})
    lists = {258, 339} if channels > 1 else set()
    start = 10 + 12 * len(tags) + 4
    values, directory = b"", struct.pack(order + "H", len(tags))
    for tag in sorted(tags):
        if tag in lists:
            directory += struct.pack(order + "HHII", tag, 3, channels, start + len(values))
            values += struct.pack(order + "H", tags[tag]) * channels
        elif tag == 273:
            directory += struct.pack(order + "HHII", tag, 4, 1, start + len(lists) * 2 * channels)
        elif tag in (258, 259, 262, 277, 338, 339):
            directory += struct.pack(order + "HHIHH", tag, 3, 1, tags[tag], 0)
        else:
            directory += struct.pack(order + "HHII", tag, 4, 1, tags[tag])
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + directory + bytes(4) + values + raw


def png16(samples: np.ndarray, transparent: bytes | None = None) -> bytes:
    """Return a PNG of 16 bits a sample: uint16 (H, W, C)."""
    samples = samples.reshape(*samples.shape[:2], -1).astype(">u2")
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2]]
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    tail = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"tRNS", transparent) if transparent else b"") + tail


def alpha(value: int) -> np.ndarray:
    return np.full((*GREY.shape, 1), value)


U16, I32, F32 = np.uint16, np.int32, np.float32
SHOWN: dict[str, Callable[[], bytes]] = {
    "float in [0, 1]": lambda: tiff((GREY / 255).astype(F32), format=3),
    "float in [0, 255]": lambda: tiff(GREY.astype(F32), format=3),
    "float of 12 bits": lambda: tiff((GREY * 16.0588).astype(F32), format=3),
    "float of 16 bits": lambda: tiff(GREY.astype(F32) * 257, format=3),
    "float, big-endian": lambda: tiff((GREY / 255).astype(F32), format=3, order=">"),
    "float, white is 0": lambda: tiff((1 - GREY / 255).astype(F32), format=3, photometric=0),
    "16 bits": lambda: tiff(GREY.astype(U16) * 257),
    "16 bits, big-endian": lambda: tiff(GREY.astype(U16) * 257, order=">"),
    "16 bits, white is 0": lambda: tiff(65535 - GREY.astype(U16) * 257, photometric=0),
    "12 bits in 16": lambda: tiff(GREY.astype(U16) * 16),
    "12 bits in 16, PNG": lambda: png16(GREY.astype(U16) * 16),
    "16 bits, PNG": lambda: png16(GREY.astype(U16) * 257),
    "16 bits and alpha, PNG": lambda: png16(np.dstack([GREY.astype(U16) * 257, alpha(65535)])),
    "signed 16 bits": lambda: tiff(GREY.astype(np.int16) * 128 + 16, format=2),
    "8 bits in 32": lambda: tiff(GREY.astype(I32), format=2),
    "16 bits in 32": lambda: tiff(GREY.astype(I32) * 257, format=2),
    "16 bits in 32, unsigned": lambda: tiff(GREY.astype(np.uint32) * 257),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_grey_picture_of_any_depth_is_that_of_8_bits(name: str) -> None:
    found = np.asarray(to_rgb(decode(SHOWN[name](), max_pixels=10_000)))
    expected = GREY.astype(int) / 2 if name == "signed 16 bits" else GREY.astype(int)  # half of 65,535
    assert np.abs(found[..., 0] - expected).max() <= 1
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_16_bits_are_those_of_8_bits(order: str) -> None:
    for data in (png16(COLOUR.astype(U16) * 257), tiff(COLOUR.astype(U16) * 257, order=order)):
        np.testing.assert_array_equal(np.asarray(to_rgb(decode(data, max_pixels=10_000))), COLOUR)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "8 bits in 16": (lambda: tiff(GREY.astype(U16)), "nearly all black when read as 16-bit samples"),
    "8 bits in 16, PNG": (lambda: png16(GREY.astype(U16)), "nearly all black"),
    "12 bits in 16, a hot pixel": (lambda: tiff(hot(GREY.astype(U16) * 16)), "nearly all black"),
    "12 bits in 16, RGB PNG": (lambda: png16(COLOUR.astype(U16) * 16), "nearly all black"),
    "12 bits in 16, RGB TIFF": (lambda: tiff(COLOUR.astype(U16) * 16), "nearly all black"),
    "8 bits in 16, RGB": (lambda: png16(COLOUR), "nearly all black"),
    "12 bits in 16, RGBA": (lambda: png16(np.dstack([COLOUR.astype(U16) * 16, alpha(65535)])), "nearly all black"),
    "12 bits in 16, grey and alpha": (lambda: png16(np.dstack([GREY.astype(U16) * 16, alpha(65535)])), "nearly all black"),
    "12 bits in 16, CMYK white": (lambda: tiff(np.dstack([COLOUR, GREY]).astype(U16), photometric=5), "nearly all white"),
    "float, overshooting 1": (lambda: tiff((GREY / 255 * 1.1).astype(F32), format=3), "nearly all black"),
    "float, dim": (lambda: tiff((GREY / 255 / 10).astype(F32), format=3), "nearly all black"),
    "float around 60,000": (lambda: tiff(60_000 + GREY.astype(F32), format=3), "nearly all white"),
    "float, standardised": (lambda: tiff((GREY / 64 - 2).astype(F32), format=3), "float samples from -[0-9.]+ to"),
    "float, vast": (lambda: tiff(GREY.astype(F32) * 1e6, format=3), "float samples from .* what is white is unknown"),
    "NaN": (lambda: tiff(np.where(GREY > 200, np.nan, GREY).astype(F32), format=3), "NaN or infinite"),
    "infinity": (lambda: tiff(np.where(GREY > 200, np.inf, GREY).astype(F32), format=3), "NaN or infinite"),
    "32 bits": (lambda: tiff(GREY.astype(I32) * 15_000, format=2), "integer samples from .* above 65,535"),
    "32 bits, unsigned": (lambda: tiff(GREY.astype(np.uint32) * 2**24), "integer samples from"),
    "signed": (lambda: tiff(GREY.astype(np.int16) - 128, format=2), "integer samples from -"),
}  # fmt: skip


def hot(samples: np.ndarray) -> np.ndarray:
    samples[3, 4] = 65535
    return samples


@pytest.mark.parametrize("name", REFUSED)
def test_samples_of_unknown_scale_are_refused(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(ImageError, match=message) as caught:
        to_array(build(), 64, max_pixels=10_000)
    assert caught.value.reason == "unreadable"
    assert "\n" not in str(caught.value)


def transparent(mode: str, levels: np.ndarray | int) -> bytes:
    image = Image.fromarray(COLOUR if mode == "RGBA" else GREY).convert(mode)
    image.putalpha(Image.fromarray(np.broadcast_to(levels, GREY.shape).astype(np.uint8)))
    return save(image, "PNG")


CLEAR: dict[str, Callable[[], bytes]] = {
    "RGBA": lambda: transparent("RGBA", 0),
    "LA": lambda: transparent("LA", 0),
    "nearly": lambda: transparent("RGBA", 9),
    "WebP": lambda: save(Image.fromarray(np.dstack([COLOUR, np.zeros_like(GREY)])), "WEBP", lossless=True, exact=True),
    "premultiplied TIFF": lambda: tiff(np.dstack([COLOUR, np.zeros_like(GREY)]), extra=1),
    "TIFF": lambda: tiff(np.dstack([COLOUR, np.zeros_like(GREY)]), extra=2),
    "palette": lambda: save(Image.fromarray(COLOUR).quantize(8), "PNG", transparency=bytes(8)),
    "one grey": lambda: save(Image.new("L", (30, 30), 90), "PNG", transparency=90),
    "one colour": lambda: save(Image.new("RGB", (30, 30), (9, 90, 200)), "PNG", transparency=(9, 90, 200)),
    "one palette entry": lambda: save(Image.new("P", (30, 30), 0), "GIF", transparency=0),
    "1 bit": lambda: save(Image.new("1", (30, 30), 1), "PNG", transparency=1),
    "16 bits": lambda: png16(np.dstack([COLOUR.astype(U16) * 257, alpha(0)])),
    "black ink": lambda: save(
        Image.merge("LA", (Image.new("L", (48, 40)), Image.fromarray(GREY.T).resize((48, 40)))), "PNG"
    ),
}


@pytest.mark.parametrize("name", CLEAR)
def test_a_picture_of_which_nothing_is_seen_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match="transparent, with nothing to see on black; save it without transp") as caught:
        to_array(CLEAR[name](), 64, max_pixels=10_000)
    assert caught.value.reason == "unreadable"


def test_transparency_hides_what_lies_below_it() -> None:
    half = np.repeat([[255], [0]], (20, len(GREY) - 20), axis=0)
    found = np.asarray(to_rgb(decode(transparent("RGBA", half), max_pixels=10_000)))
    np.testing.assert_array_equal(found[:20], COLOUR[:20])
    assert not found[20:].any()
    key = int(GREY[0, 0])
    for data in (
        save(Image.fromarray(GREY), "PNG", transparency=key),
        png16(GREY.astype(U16) * 257, struct.pack(">H", key * 257)),
    ):
        found = np.asarray(to_rgb(decode(data, max_pixels=10_000)))[..., 0]
        np.testing.assert_array_equal(found, np.where(key == GREY, 0, GREY))
    colour = tuple(map(int, COLOUR[0, 0]))
    found = np.asarray(to_rgb(decode(save(Image.fromarray(COLOUR), "PNG", transparency=colour), max_pixels=10_000)))
    np.testing.assert_array_equal(found, np.where((colour == COLOUR).all(axis=2, keepdims=True), 0, COLOUR))


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_a_flat_opaque_picture_of_8_bits_is_read(mode: str, level: int) -> None:
    data = save(Image.new("RGB", (30, 40), (level, level, level)).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    assert abs(int(to_array(data, 64, max_pixels=10_000).mean()) - level) <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N", "I", "F"])
def test_every_deep_mode_of_pillow_is_converted(mode: str) -> None:
    buffer = io.BytesIO((GREY.astype("<u2") * 257).tobytes())
    deep = Image.frombytes("I;16", GREY.shape[::-1], buffer.getvalue())
    image = (
        deep
        if mode == "I;16"
        else deep.convert("I")
        if mode == "I"
        else deep.convert("I").convert("F")
        if mode == "F"
        else None
    )
    if image is None:
        order = ">" if mode == "I;16B" else "<"
        image = Image.frombytes(
            mode, GREY.shape[::-1], (GREY.astype(order + "u2") * 257).astype(order + "u2").tobytes()
        )
    np.testing.assert_array_equal(np.asarray(to_rgb(image))[..., 0], GREY)
