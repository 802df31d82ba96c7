"""No bytes crash the decoder, and none makes it take more memory than it states."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_pixels
from fuzz_images import build_large_pictures, build_pictures, save, tiled_tiff
from PIL import Image

from gender_classifier.data.images import MAX_BYTES_PER_PIXEL, to_array, to_rgb
from gender_classifier.errors import ImageError

HERE = Path(__file__).parent
COUNT = 2400
KINDS = ["jpeg progressive cmyk", "png 16 bit", "png alpha", "webp lossless alpha", "tiff float"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read and limited as Linux does")


def fuzz(*arguments: str, data: bytes = b"") -> dict[str, Any]:
    """Decode in a process of its own: a crash of a codec is an exit status here, and its memory is nobody else's."""
    command = [sys.executable, str(HERE / "fuzz_images.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    done = subprocess.run(command, check=False, input=data, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:].decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def fuzzed() -> dict[str, Any]:
    return fuzz("--count", str(COUNT), "--seed", "20261124")


@pytest.fixture(scope="module")
def large() -> dict[str, bytes]:
    return build_large_pictures(2000)


def test_any_bytes_are_a_picture_or_an_image_error(fuzzed: dict[str, Any]) -> None:
    assert fuzzed["failures"] == []
    assert fuzzed["count"] == COUNT + fuzzed["bombs"]
    # Not only refused: images that a mutation leaves whole, and every reason, come up.
    assert fuzzed["outcomes"]["array"] > 100
    assert set(fuzzed["outcomes"]) == {"array", "empty", "not_an_image", "truncated", "too_large", "unreadable"}


@linux
def test_memory_stays_within_what_the_decoder_states(fuzzed: dict[str, Any]) -> None:
    assert fuzzed["growth_bytes"] <= fuzzed["bound_bytes"]


@linux
@pytest.mark.parametrize("name", KINDS)
def test_large_pictures_take_no_more_than_the_stated_bytes_a_pixel(large: dict[str, bytes], name: str) -> None:
    found = fuzz("--one", data=large[name])
    assert found["outcome"] == "array"
    # 4 MB for what a codec sets up once.
    assert 4 * 2000**2 <= found["growth_bytes"] <= MAX_BYTES_PER_PIXEL * 2000**2 + 4_000_000


@linux
@pytest.mark.parametrize("name", KINDS)
def test_a_lack_of_memory_is_an_image_error(large: dict[str, bytes], name: str) -> None:
    assert fuzz("--one", "--spare", "8000000", data=large[name])["outcome"] in ("too_large", "unreadable")


@pytest.mark.parametrize("name", sorted(build_pictures()))
def test_whole_pictures_of_every_kind_are_read(name: str) -> None:
    assert to_array(build_pictures()[name], 64, max_pixels=10_000).shape == (64, 64, 3)


def test_a_small_tiff_of_huge_tiles_is_refused() -> None:
    with pytest.raises(ImageError, match="tiles of 2000 x 2000 px") as caught:
        to_array(tiled_tiff(2000), 64, max_pixels=1_000_000)
    assert caught.value.reason == "too_large"


def test_a_mode_without_a_way_to_rgb_is_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("conversion from LAB to RGB not supported")  # as older Pillows say

    data = save(Image.new("LAB", (30, 30)), "TIFF")
    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(ImageError, match="mode LAB cannot be made RGB") as caught:
        to_array(data, 64, max_pixels=10_000)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_honoured(format: str, orientation: int) -> None:
    """An upright image, stored turned with the tag that says so, gives the array of the upright one."""
    upright = Image.fromarray(draw_pixels(5, 96, 128))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    found = to_array(save(stored, format, exif=exif, **options), 64, max_pixels=100_000)
    expected = np.asarray(upright.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    # Resizing sums in another order when turned.
    assert np.abs(found - expected).max() <= (12 if format == "JPEG" else 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "F", "P"])
def test_converting_in_bands_is_converting_at_once(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = draw_pixels(2, 50, 70)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    image = {
        "RGBA": Image.fromarray(np.dstack([pixels, grey])),
        "LA": Image.fromarray(np.dstack([grey, grey[::-1]])),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 200),
        "F": Image.fromarray(grey.astype(np.float32) / 3),
        "P": Image.fromarray(pixels).quantize(8),
    }[mode]
    image.info["transparency"] = 3 if mode == "P" else b""
    if mode != "P":
        del image.info["transparency"]
    assert image.mode == mode
    expected = np.asarray(to_rgb(image))
    monkeypatch.setattr("gender_classifier.data.formats.pixel_range.BAND_PIXELS", 333)
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), expected)
