"""Images without a face: drawn patterns, noise, plain colours, text, and crops of scikit-learn's two photographs."""

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

NUM_EACH = 200
"""Images of each kind."""

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789     "
_FONT_SIZES = (0.12, 0.18, 0.25, 0.4)  # of a side
_NOISE_CELLS = (64, 32, 16, 8)  # a side
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")
_SHORTEST_CROP = 64  # px a side


def draw_nonfaces(size: int, count: int = NUM_EACH) -> dict[str, Pixels]:
    """Return images by kind, uint8 (count, size, size, 3) each; equal arguments give equal images.

    Args:
        size: px a side.
        count: images of each kind.
    """
    return {
        name: np.stack([draw(np.random.default_rng((place, number)), number, size) for number in range(count)])
        for place, (name, draw) in enumerate(KINDS.items())
    }


def _draw_pattern(rng: np.random.Generator, number: int, size: int) -> Pixels:
    """Draw stripes, a checkerboard, rings or a gradient of two colours, at any angle."""
    first, second = rng.integers(0, 256, (2, 3))
    y, x = np.mgrid[:size, :size] / size
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.5)
    across, along = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kind = number % 4
    if kind == 3:
        share = (across - across.min()) / np.ptp(across)
    else:
        steps = np.hypot(x - rng.uniform(), y - rng.uniform()) if kind == 2 else across
        share = (steps // period + (along // period if kind == 1 else 0)) % 2
    pixels: Pixels = (share[..., None] * first + (1 - share[..., None]) * second).astype(np.uint8)
    return pixels


def _draw_noise(rng: np.random.Generator, number: int, size: int) -> Pixels:
    """Draw random cells, coloured or grey, coarse or fine, with sharp or smooth borders."""
    cells = _NOISE_CELLS[number % 4]
    values = rng.integers(0, 256, (cells, cells, 1 if number % 8 < 4 else 3), dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(values, (cells, cells, 3)).copy())
    border = Image.Resampling.NEAREST if number % 16 < 8 else Image.Resampling.BICUBIC
    return np.asarray(image.resize((size, size), border))


def _draw_plain(rng: np.random.Generator, number: int, size: int) -> Pixels:
    return np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (size, size, 3)).copy()


def _draw_text(rng: np.random.Generator, number: int, size: int) -> Pixels:
    """Draw lines of letters, black on white or in two colours."""
    paper, ink = rng.integers(0, 256, (2, 3)).tolist() if number % 2 else ([255] * 3, [0] * 3)
    image = Image.new("RGB", (size, size), tuple(paper))
    canvas, height = ImageDraw.Draw(image), max(round(_FONT_SIZES[number // 2 % 4] * size), 8)
    for top in range(0, size, round(height * 1.3)):
        line = "".join(rng.choice(list(_LETTERS), 24))
        canvas.text((1, top), line, fill=tuple(ink), font=ImageFont.load_default(height))
    return np.asarray(image)


def _crop_photograph(rng: np.random.Generator, number: int, size: int) -> Pixels:
    """Crop a square of a photograph: a temple in China, or a dahlia."""
    photograph = _open_photograph(_PHOTOGRAPHS[number % 2])
    side = int(rng.integers(_SHORTEST_CROP, photograph.height))
    left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
    crop = photograph.crop((left, top, left + side, top + side))
    return np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))


@cache
def _open_photograph(name: str) -> Image.Image:
    found = importlib.util.find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    with Image.open(Path(found.origin).parent / "datasets" / "images" / name) as image:
        return image.convert("RGB")


KINDS: Mapping[str, Callable[[np.random.Generator, int, int], Pixels]] = {
    "patterns": _draw_pattern,
    "noise": _draw_noise,
    "plain colours": _draw_plain,
    "text": _draw_text,
    "photographs": _crop_photograph,
}
"""What draws each kind: from a generator, the image's number and the size."""
