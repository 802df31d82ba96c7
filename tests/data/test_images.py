"""One decoder: right pixels, and an ImageError for anything else."""

import io

import numpy as np
import pytest
from conftest import draw_pixels, encode, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from gender_classifier.data.images import Crop, crop_wide, decode, perceptual_hash, shrink_grey, to_array
from gender_classifier.errors import ImageError

LIMIT = 1_000_000
PIXELS = draw_pixels(1)


def test_the_array_is_torchvisions_resize() -> None:
    data = encode(PIXELS, "PNG")
    expected = resize(Image.fromarray(PIXELS), [64, 64], InterpolationMode.BILINEAR, antialias=True)
    np.testing.assert_array_equal(to_array(data, 64, max_pixels=LIMIT), np.asarray(expected))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_every_format_gives_rgb_of_the_right_size(format: str) -> None:
    array = to_array(encode(PIXELS, format), 64, max_pixels=LIMIT)
    assert (array.shape, array.dtype) == ((64, 64, 3), np.uint8)
    assert np.abs(array.astype(int) - to_array(encode(PIXELS, "PNG"), 64, max_pixels=LIMIT)).mean() < 12


def save(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_modes_become_rgb() -> None:
    grey = Image.fromarray(PIXELS).convert("L")
    as_rgb = to_array(save(grey.convert("RGB")), 64, max_pixels=LIMIT)
    np.testing.assert_array_equal(to_array(save(grey), 64, max_pixels=LIMIT), as_rgb)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert np.abs(to_array(save(deep), 64, max_pixels=LIMIT).astype(int) - as_rgb).max() <= 1
    cmyk = to_array(save(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"), 64, max_pixels=LIMIT)
    assert np.abs(cmyk.astype(int) - to_array(encode(PIXELS, "PNG"), 64, max_pixels=LIMIT)).mean() < 3


def test_a_wide_image_is_used_as_its_middle() -> None:
    crop = Crop(0.9, 0.5)
    wide = draw_pixels(2, 100, 100)
    middle = to_array(encode(wide[:, 25:75], "PNG"), 64, max_pixels=LIMIT)
    np.testing.assert_array_equal(to_array(encode(wide, "PNG"), 64, max_pixels=LIMIT, crop=crop), middle)
    turned = Image.Exif()
    turned[0x0112] = 6  # stored on its side: the crop is of the upright image
    stored = Image.fromarray(wide).transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(to_array(save(stored, exif=turned), 64, max_pixels=LIMIT, crop=crop), middle)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((90, 100), (90, 100)), ((91, 100), (50, 100)), ((40, 100), (40, 100)), ((9, 1), (1, 1)), ((300, 3), (2, 3))],
)
def test_only_images_above_the_limit_are_cropped(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert crop_wide(image, Crop(0.9, 0.5)).size == expected
    assert crop_wide(image, None) is image


def test_a_lack_of_memory_for_the_middle_is_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "crop", refuse)
    with pytest.raises(ImageError, match="100 x 100 px need more memory than there is") as caught:
        to_array(encode(draw_pixels(2, 100, 100), "PNG"), 64, max_pixels=LIMIT, crop=Crop(0.9, 0.5))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(PIXELS)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that an editor would store
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    found = decode(save(stored, exif=exif), max_pixels=LIMIT)
    np.testing.assert_array_equal(np.asarray(found), PIXELS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"just a note", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not_an_image"),
        (picture(1)[:-400], "truncated"),
        (encode(PIXELS, "PNG")[:-4000], "truncated"),
        (picture(1)[:100], "truncated"),
    ],
)
def test_what_is_no_whole_picture_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=LIMIT)
    assert caught.value.reason in (reason, "unreadable" if len(data) == 100 else reason)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_by_its_header() -> None:
    bomb = encode(np.zeros((5000, 5000), np.uint8), "PNG")
    with pytest.raises(ImageError) as caught:
        decode(bomb, max_pixels=LIMIT)
    assert caught.value.reason == "too_large"
    assert "5000 x 5000 px" in str(caught.value)


SEEDS = [picture(1, 20, 24), encode(PIXELS[:24, :20], "PNG"), encode(PIXELS[:24, :20], "GIF"),
         encode(PIXELS[:24, :20], "WEBP"), encode(PIXELS[:24, :20], "TIFF"), encode(PIXELS[:24, :20], "BMP")]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12), st.integers(0)
)
def test_any_bytes_are_a_picture_or_an_image_error(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        array = to_array(bytes(data[: len(data) - cut % len(data)]), 64, max_pixels=LIMIT)
    except ImageError as error:
        assert error.reason in ("not_an_image", "truncated", "too_large", "unreadable")
    else:
        assert (array.shape, array.dtype) == ((64, 64, 3), np.uint8)


def distance(one: str, two: str) -> int:
    return (int(one, 16) ^ int(two, 16)).bit_count()


def hash_image(image: Image.Image) -> str:
    return perceptual_hash(shrink_grey(image.convert("L")))


def test_the_hash_tells_pictures_apart_and_survives_recompression() -> None:
    hashes = [hash_image(decode(picture(seed), max_pixels=LIMIT)) for seed in range(12)]
    assert {len(text) for text in hashes} == {64}
    different = [distance(one, two) for row, one in enumerate(hashes) for two in hashes[:row]]
    assert min(different) > 60
    for seed, text in enumerate(hashes):
        smaller = Image.fromarray(draw_pixels(seed)).resize((72, 90))
        again = decode(save(smaller, "JPEG", quality=60), max_pixels=LIMIT)
        assert distance(text, hash_image(again)) <= 16
