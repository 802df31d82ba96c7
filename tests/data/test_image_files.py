"""Metadata keeps no sound pixels from being read, and formats that are not read are called by their names."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from conftest import draw_pixels
from fuzz_images import build_pictures, chunk, png_with_text, save, tiled_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gender_classifier.data.formats.image_files import name_unread_format, open_container
from gender_classifier.data.images import decode, to_array
from gender_classifier.errors import ImageError

RGB = Image.fromarray(draw_pixels(1, 40, 48))
PNG, JPEG, WEBP = (save(RGB, format) for format in ("PNG", "JPEG", "WEBP"))
HEADER = 33  # bytes of a PNG's signature and first chunk


def read(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, max_pixels=10_000))


def damaged(kind: bytes, content: bytes) -> bytes:
    whole = chunk(kind, content)
    return whole[:-1] + bytes([whole[-1] ^ 1])


NOISE = random.Random(1).randbytes(2_500_000)
PNG_CHUNKS = {
    "2.5 MB of text": chunk(b"tEXt", b"note\0" + NOISE),
    "compressed text": chunk(b"zTXt", b"note\0\0" + zlib.compress(NOISE)),
    "international text": chunk(b"iTXt", b"note\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000)),
    "much text": chunk(b"zTXt", b"note\0\0" + zlib.compress(b"a" * 900_000)) * 80,
    "profile": chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(NOISE)),
    "profile of no known method": chunk(b"iCCP", b"sRGB\0\7abc"),
    "text of no known method": chunk(b"zTXt", b"note\0\7abc"),
    **{f"short {kind.decode()}": chunk(kind, b"") for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"acTL", b"fcTL", b"tRNS")},
    **{f"wrong checksum of {kind.decode()}": damaged(kind, content)
       for kind, content in ((b"tEXt", b"note\0a"), (b"tIME", bytes(7)), (b"gAMA", bytes(4)), (b"tRNS", bytes(6)),
                             (b"eXIf", b"MM\0*"), (b"prVt", b""))},
}  # fmt: skip


@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_chunks_around_the_pixels_of_a_png_keep_nothing_from_being_read(name: str) -> None:
    for place in (HEADER, len(PNG) - 12):
        data = PNG[:place] + PNG_CHUNKS[name] + PNG[place:]
        np.testing.assert_array_equal(read(data), np.asarray(RGB))


def test_sound_transparency_and_orientation_survive_a_bomb_of_text() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = save(RGB.quantize(8), "PNG", transparency=b"\x80", exif=exif)
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2_000_000)))
    image = decode(palette[:HEADER] + bomb + palette[HEADER:], max_pixels=10_000)
    assert (image.mode, image.size) == ("P", (RGB.height, RGB.width))
    assert image.info["transparency"] == b"\x80"


def test_a_bomb_of_text_is_not_unpacked() -> None:
    assert len(open_container(png_with_text(50_000_000), max_pixels=100).data) < 200
    assert read(png_with_text(50_000_000)).shape == (10, 10, 3)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize("with_profile", [False, True])
def test_any_application_segment_of_a_jpeg_may_be_damaged(with_profile: bool) -> None:
    expected = read(JPEG)
    rng = random.Random(2)
    starts = (b"", b"JFIF", b"JFIF\0", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"ICC_PROFILE\0", b"MPF\0II*\0\x08\0\0\0",
              b"Photoshop 3.0\08BIM\x03\xed", b"http://ns.adobe.com/xap/1.0/\0")  # fmt: skip
    profile = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 30]) + bytes(65_000)) for n in range(1, 31))
    for _ in range(300):
        marker = rng.choice([0xFE, *range(0xE0, 0xEE), 0xEF])
        odd = segment(marker, rng.choice(starts) + rng.randbytes(rng.choice((0, 1, 2, 5, 8, 40))))
        np.testing.assert_array_equal(read(JPEG[:2] + odd + profile * with_profile + JPEG[2:]), expected)
        with_profile = False  # once is enough
    np.testing.assert_array_equal(read(JPEG[:2] + segment(0xEE, b"Adobe") + JPEG[2:]), expected)


def webp_with(kind: bytes, length: int, content: bytes) -> bytes:
    body = WEBP[8:] + kind + struct.pack("<I", length) + content
    header = b"VP8X" + struct.pack("<I", 10) + b"\x2c\0\0\0" + struct.pack("<I", 39)[:3] + struct.pack("<I", 47)[:3]
    body = body[:4] + header + body[4:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP"])
@pytest.mark.parametrize("length", [0, 6, 10**6, 2**32 - 1])
def test_metadata_of_a_webp_may_be_damaged(kind: bytes, length: int) -> None:
    np.testing.assert_array_equal(read(webp_with(kind, length, b"abcdef")), read(WEBP))


@pytest.mark.parametrize("tag", [254, 269, 270, 271, 274, 282, 305, 306, 315, 700, 33723, 34377, 34665, 34675, 34853])
def test_tags_beside_the_pixels_of_a_tiff_may_be_damaged(tag: int) -> None:
    """One more directory entry, of odd types, counts and values."""
    data = tiled_tiff(16)
    expected = read(data)
    count = struct.unpack("<H", data[8:10])[0]
    for kind, number, value in (
        (0, 1, 0),
        (2, 3, 9),
        (5, 1, 8),
        (7, 70_000, 8),
        (12, 2**31, 2**32 - 1),
        (1, 4, 0),
        (13, 1, 0),
    ):
        entries = [data[10 + 12 * row : 22 + 12 * row] for row in range(count)]
        entries = sorted(
            [*entries, struct.pack("<HHII", tag, kind, number, value)], key=lambda one: struct.unpack("<H", one[:2])
        )
        start = len(data)
        odd = (
            data[:4] + struct.pack("<I", start) + data[8:] + struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
        )
        np.testing.assert_array_equal(read(odd), expected)


@pytest.mark.parametrize("name", sorted(build_pictures()))
def test_cut_pixels_are_refused_with_and_without_metadata(name: str) -> None:
    data = build_pictures()[name]
    try:
        decode(data[: len(data) // 2], max_pixels=10_000)
    except ImageError:
        return
    # A file of several images whose first one is whole.
    assert any(word in name for word in ("animated", "two images", "tiff"))


@settings(deadline=None)
@given(
    st.sampled_from([*build_pictures().values(), b"RIFF", b"MM\0*", b"\xff\xd8\xff", b"II*\0", b"GIF89a", b"BM"]),
    st.binary(max_size=60),
    st.integers(0, 200),
)
def test_any_bytes_are_cut_without_another_error(data: bytes, noise: bytes, place: int) -> None:
    odd = data[:place] + noise + data[place + len(noise) :]
    try:
        container = open_container(odd, max_pixels=10_000)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert len(container.data) <= len(odd) + 8
        assert 1 <= container.orientation <= 8


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def raw_profile(exif: bytes) -> bytes:
    digits = exif.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return f"\nexif\n{len(exif):8d}\n{lines}\n".encode()


def exif(value: int, *, kind: int = 3, order: str = "<") -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    field = struct.pack(order + ("H" if kind == 3 else "I"), value).ljust(4, b"\0")
    return b"Exif\0\0" + head + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + field + bytes(4)


ORIENTED = {
    "JPEG, EXIF": JPEG[:2] + segment(0xE1, exif(6)) + JPEG[2:],
    "JPEG, EXIF of the other byte order": JPEG[:2] + segment(0xE1, exif(6, kind=4, order=">")) + JPEG[2:],
    "JPEG, XMP": JPEG[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) + JPEG[2:],
    "PNG, EXIF at the end": PNG[:-12] + chunk(b"eXIf", exif(6)[6:]) + PNG[-12:],
    "PNG, XMP": PNG[:HEADER] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + PNG[HEADER:],
    "PNG, packed XMP": PNG[:HEADER]
    + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    + PNG[HEADER:],
    "PNG, ImageMagick's profile": PNG[:HEADER]
    + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(exif(6))))
    + PNG[HEADER:],
    "WebP, EXIF": webp_with(b"EXIF", len(exif(6)), exif(6)),
    "WebP, XMP": webp_with(b"XMP ", len(XMP), XMP),
}


@pytest.mark.parametrize("name", ORIENTED)
def test_the_orientation_is_found_wherever_it_is_stated(name: str) -> None:
    assert open_container(ORIENTED[name], max_pixels=10_000).orientation == 6
    assert decode(ORIENTED[name], max_pixels=10_000).size == (48, 40)


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_an_unknown_orientation_is_upright(value: int) -> None:
    data = JPEG[:2] + segment(0xE1, exif(value)) + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) + JPEG[2:]
    assert open_container(data, max_pixels=10_000).orientation == 1


def brand(*names: bytes) -> bytes:
    return (
        struct.pack(">I", 8 + 4 * (len(names) + 1))
        + b"ftyp"
        + names[0]
        + bytes(4)
        + b"".join(names[1:])
        + b"\0\0\0\x08mdat"
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (brand(b"heic", b"mif1", b"heic"), "HEIC"),
        (brand(b"mif1", b"heic"), "HEIC"),
        (brand(b"mif1", b"avif", b"miaf"), "AVIF"),
        (brand(b"avis"), "AVIF"),
        (brand(b"jxl "), "JPEG XL"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "JPEG 2000"),
        (b"\xff\x4f\xff\x51" + bytes(20), "JPEG 2000"),
        (b"8BPS\0\1" + bytes(20), "Photoshop PSD"),
        (b"%PDF-1.7\n", "PDF"),
        (brand(b"isom", b"mp42"), "MP4 video"),
    ],
)
def test_a_format_that_is_not_read_is_named(data: bytes, name: str) -> None:
    assert name_unread_format(data) == name
    with pytest.raises(ImageError, match=f"^{name} is not read; convert the file to JPEG or PNG$") as caught:
        to_array(data, 64, max_pixels=10_000)
    assert caught.value.reason == "not_an_image"


@pytest.mark.parametrize("format", ["JPEG 2000", "AVIF"])
def test_what_pillow_writes_in_other_formats_is_named(format: str) -> None:
    buffer = io.BytesIO()
    try:
        RGB.save(buffer, format.replace("JPEG 2000", "JPEG2000"))
    except (KeyError, OSError):
        pytest.skip(f"this Pillow cannot write {format}")
    assert name_unread_format(buffer.getvalue()) == format
