"""The built-in data set: drawn portraits. Metrics measured on it say nothing about faces.

Every image is drawn with integers from a seed of its own, so that the pixels are the same on every machine (and the
bytes, with the same version of Pillow). A hidden score determines how each trait is drawn. The scores of the two
classes overlap: about one image in thirty is on the wrong side, so that no model classifies all of them.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from gender_classifier.data.names import CLASSES, RAW_SPLITS
from gender_classifier.errors import ParamsError

MIN_TRAIN, MIN_VAL = 24, 8
"""Fewest images that leave good ones in every class folder besides the planted faults."""

_TOLERATED = 50  # one image in this many may be rejected by `verify`: its default limit is 2 %

# Distance of each class's mean score from zero, in thousandths of the standard deviation: a model reaches at most
# Phi(1.9) = 97 %, less what the noise of the traits hides.
_SCORE = 1900
_OVERSAMPLE = 3  # drawn this many times larger, then averaged for smooth edges

Color = tuple[int, int, int]


def draw_sample(seed: int, *, num_train: int = 2000, num_val: int = 400) -> Iterator[tuple[str, bytes]]:
    """Draw the data set, faults included; yield (member, file content) sorted by member.

    Args:
        seed: determines the portraits.
        num_train: images in ``Training/``, half of each class.
        num_val: images in ``Validation/``.

    Raises:
        ParamsError: too few images for the planted faults.
    """
    if num_train < MIN_TRAIN or num_val < MIN_VAL:
        raise ParamsError(
            f"a sample of {num_train} + {num_val} images is too small for its planted faults; set ingest.sample_train "
            f"to at least {MIN_TRAIN} and ingest.sample_val to at least {MIN_VAL}"
        )
    yield from ((name, make()) for name, make in sorted(_plan(seed, num_train, num_val).items()))


Plan = dict[str, Callable[[], bytes]]


def _plan(seed: int, num_train: int, num_val: int) -> Plan:
    """Map the name of every image to a function that makes it; faults replace the last portraits of a folder."""
    plan: Plan = {}
    folders: dict[str, list[str]] = {}
    for split, total in zip(RAW_SPLITS, (num_train, num_val), strict=True):
        for label, name in enumerate(CLASSES):
            count = total // 2 + (total % 2 if label == 0 else 0)
            folders[f"{split}/{name}"] = [f"{split}/{name}/{_number(split, name, k)}" for k in range(count)]
            for member in folders[f"{split}/{name}"]:
                plan[member] = _portrait(seed, member, label)
    _plant(plan, folders, seed)
    return plan


def _number(split: str, name: str, k: int) -> str:
    # As in the Kaggle set: six digits, numbered through all folders, the suffix twice.
    start = 1 + 500_000 * RAW_SPLITS.index(split) + 250_000 * CLASSES.index(name)
    return f"{start + k:06d}.jpg.jpg"


def _plant(plan: Plan, folders: dict[str, list[str]], seed: int) -> None:
    """Replace some portraits by faults of real collections, for `verify` to find.

    All faults are planted if the sample is large enough for `verify` to tolerate them, otherwise the first ones below.
    """
    train_female, train_male = folders["Training/female"], folders["Training/male"]
    val_female = folders["Validation/female"]
    whole = plan[train_male[-2]]
    # Kept by `verify`: a grey image, and images saved again at another size and quality.
    plan[train_female[-2]] = _portrait(seed, train_female[-2], 0, grey=True)
    plan[train_male[-4]] = _portrait(seed, train_male[1], 1, resave=True)
    plan[train_female[-4]] = _portrait(seed, train_female[1], 0, resave=True)
    # Rejected: number of rejected images, replaced image, replacement.
    faults: list[tuple[int, str, Callable[[], bytes]]] = [
        (1, train_female[-3], plan[train_female[0]]),  # an exact copy
        (1, val_female[-1], plan[train_female[2]]),  # a copy in the other split
        (1, train_male[-2], lambda: (data := whole())[: len(data) * 3 // 5]),
        (1, train_female[-1], lambda: b""),
        (2, train_male[-5], plan[train_female[3]]),  # a copy in the other class: both are rejected
        (1, train_male[-1], lambda: b"This is a note that somebody saved as an image.\n"),
        (1, train_male[-3], plan[train_male[0]]),
    ]
    tolerated = len(plan) // _TOLERATED
    for rejected, member, make in faults:
        tolerated -= rejected
        if tolerated < 0:
            break
        plan[member] = make


def _portrait(seed: int, member: str, label: int, *, grey: bool = False, resave: bool = False) -> Callable[[], bytes]:
    def make() -> bytes:
        digest = hashlib.sha256(f"{seed} {member}".encode()).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))
        image, quality = _draw(rng, label)
        if grey:
            image = image.convert("L")
        if resave:
            width, height = image.size
            image = image.resize((width * 21 // 20, height * 21 // 20), Image.Resampling.BILINEAR)
            quality -= 8
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()

    return make


@dataclass(frozen=True)
class _Traits:
    """Strength of each trait, 0 (male end) to 1000 (female end)."""

    hair: int
    jaw: int
    brow: int
    lips: int
    shadow: int
    lashes: int


def _draw(rng: np.random.Generator, label: int) -> tuple[Image.Image, int]:
    """Return one portrait, RGB, and the JPEG quality to save it at."""
    score = _normal(rng) + (_SCORE if label == 0 else -_SCORE)
    traits = _Traits(*(_trait(rng, score, noise) for noise in (500, 600, 700, 700, 600, 700)))
    width = int(rng.integers(52, 112))
    height = min(max(width * int(rng.integers(118, 142)) // 100, 58), 151)
    canvas = _draw_figure(rng, width * _OVERSAMPLE, height * _OVERSAMPLE, traits)
    small = canvas.resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int16) + rng.integers(-5, 6, (height, width, 1), dtype=np.int16)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), int(rng.integers(78, 96))


def _normal(rng: np.random.Generator) -> int:
    """Draw from a nearly normal distribution, in thousandths, without exp or log, which differ between machines."""
    return int(rng.integers(0, 1000, 12).sum()) - 5994


def _trait(rng: np.random.Generator, score: int, noise: int) -> int:
    return min(max(500 + (score + _normal(rng) * noise // 1000) // 7, 0), 1000)


def _draw_figure(rng: np.random.Generator, width: int, height: int, traits: _Traits) -> Image.Image:
    skin = _shade(_SKINS[int(rng.integers(len(_SKINS)))], int(rng.integers(88, 111)))
    hair = _shade(_HAIRS[int(rng.integers(len(_HAIRS)))], int(rng.integers(80, 125)))
    cloth: Color = tuple(rng.integers(20, 220, 3).tolist())
    image = _background(rng, width, height)
    draw = ImageDraw.Draw(image)
    # Coordinates below are in thousandths of the head's width, from its centre.
    unit = width * int(rng.integers(480, 660)) // 1000
    cx = width // 2 + unit * int(rng.integers(-110, 111)) // 1000
    cy = height * int(rng.integers(430, 530)) // 1000
    tilt = int(rng.integers(-110, 111))

    def at(x: int, y: int) -> tuple[int, int]:
        return cx + (x * 1000 - y * tilt) * unit // 1_000_000, cy + (y * 1000 + x * tilt) * unit // 1_000_000

    def oval(x: int, y: int, rx: int, ry: int, fill: Color) -> None:
        px, py = at(x, y)
        dx, dy = rx * unit // 1000, ry * unit // 1000
        draw.ellipse((px - dx, py - dy, px + dx, py + dy), fill=fill)

    def shape(points: list[tuple[int, int]], fill: Color) -> None:
        draw.polygon([at(x, y) for x, y in points], fill=fill)

    _draw_back(draw, oval, shape, traits, hair)
    shape([(-190, 300), (190, 300), (230, 800), (-230, 800)], _shade(skin, 84))
    shoulders = 900 - traits.jaw * 250 // 1000
    oval(0, 1330, shoulders, 560, cloth)
    _draw_head(oval, shape, traits, skin, hair)
    _draw_features(rng, oval, shape, traits, skin, hair)
    return image


Oval = Callable[[int, int, int, int, Color], None]
Shape = Callable[[list[tuple[int, int]], Color], None]


def _draw_back(draw: ImageDraw.ImageDraw, oval: Oval, shape: Shape, traits: _Traits, hair: Color) -> None:
    """Draw hair behind the head, from cropped to below the shoulders."""
    dark = _shade(hair, 80)
    length = -250 + traits.hair * 1350 // 1000
    spread = 520 + traits.hair * 170 // 1000
    oval(0, -190, 550, 570, dark)
    if length > 0:
        shape([(-530, -200), (530, -200), (spread, length), (-spread, length)], dark)
        oval(-spread + 140, length, 140, 120, dark)
        oval(spread - 140, length, 140, 120, dark)


def _draw_head(oval: Oval, shape: Shape, traits: _Traits, skin: Color, hair: Color) -> None:
    jaw = 440 - traits.jaw * 190 // 1000
    chin = 600 + traits.jaw * 30 // 1000
    oval(-490, 30, 70, 120, _shade(skin, 90))
    oval(490, 30, 70, 120, _shade(skin, 90))
    oval(0, -110, 480, 520, skin)
    oval(0, 100, 470, 420, skin)
    shape([(-468, 120), (468, 120), (jaw, 470), (jaw // 2, chin), (-jaw // 2, chin), (-jaw, 470)], skin)
    stubble = max(0, 330 - traits.shadow * 500 // 1000)
    if stubble:
        tone = _mix(skin, hair, stubble)
        shape([(-430, 220), (-250, 300), (250, 300), (430, 220), (jaw, 470), (jaw // 2, chin),
               (-jaw // 2, chin), (-jaw, 470)], tone)  # fmt: skip
        shape([(-200, 225), (200, 225), (250, 330), (-250, 330)], tone)
    # The hairline: a cap over the forehead, and strands along the temples if the hair is long.
    fringe = -330 + traits.hair * 60 // 1000
    shape([(-500, -160), (-450, -480), (-250, -660), (0, -710), (250, -660), (450, -480), (500, -160),
           (410, fringe), (150, fringe - 60), (-150, fringe - 30), (-410, fringe)], hair)  # fmt: skip
    strand = traits.hair * 700 // 1000
    if strand > 200:
        shape([(-500, -250), (-400, -300), (-430, strand - 250), (-530, strand - 200)], hair)
        shape([(500, -250), (400, -300), (430, strand - 250), (530, strand - 200)], hair)


def _draw_features(
    rng: np.random.Generator, oval: Oval, shape: Shape, traits: _Traits, skin: Color, hair: Color
) -> None:
    iris = _IRISES[int(rng.integers(len(_IRISES)))]
    apart = int(rng.integers(195, 225))
    brow = 58 - traits.brow * 36 // 1000
    lash = traits.lashes * 26 // 1000
    height = 48 + traits.lashes * 16 // 1000
    for side in (-1, 1):
        x = side * apart
        oval(x, -28, 108, height + lash, _mix(skin, (25, 18, 15), 300 + traits.lashes * 5 // 10))
        oval(x, -20, 96, height, (244, 242, 238))
        oval(x, -20, 44, min(44, height), iris)
        oval(x, -20, 20, 20, (15, 12, 12))
        lift = -150 - traits.brow * 40 // 1000
        shape([(x - side * 110, lift), (x + side * 20, lift - 45), (x + side * 130, lift),
               (x + side * 130, lift + brow // 2), (x + side * 20, lift - 45 + brow), (x - side * 110, lift + brow)],
              _shade(hair, 75))  # fmt: skip
    nose = 88 - traits.jaw * 26 // 1000
    shape([(-28, 0), (28, 0), (nose, 190), (0, 225), (-nose, 190)], _shade(skin, 90))
    red = _mix(_shade(skin, 78), (190, 40, 60), traits.lips * 8 // 10)
    full = 26 + traits.lips * 40 // 1000
    smile = int(rng.integers(-10, 40))
    wide = int(rng.integers(150, 195))
    shape([(-wide, 370 - smile), (-60, 370 - full), (0, 378 - full), (60, 370 - full), (wide, 370 - smile),
           (70, 370 + full), (-70, 370 + full)], red)  # fmt: skip
    shape([(-wide, 370 - smile), (0, 366), (wide, 370 - smile), (0, 382)], _shade(red, 60))


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return a soft backdrop: a few random colours, enlarged."""
    base = rng.integers(50, 206, 3)
    patches = np.clip(base + rng.integers(-60, 61, (9, 7, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BILINEAR)


_SKINS: tuple[Color, ...] = (
    (255, 219, 196), (241, 194, 160), (224, 172, 130), (198, 140, 100), (150, 100, 68), (108, 70, 48),
)  # fmt: skip
_HAIRS: tuple[Color, ...] = (
    (28, 22, 20), (60, 40, 28), (96, 62, 36), (150, 104, 60), (206, 168, 104), (120, 50, 28), (150, 148, 146),
)  # fmt: skip
_IRISES: tuple[Color, ...] = ((70, 46, 28), (88, 118, 150), (84, 110, 70), (50, 34, 24))


def _shade(color: Color, percent: int) -> Color:
    red, green, blue = (min(255, part * percent // 100) for part in color)
    return red, green, blue


def _mix(color: Color, other: Color, permille: int) -> Color:
    red, green, blue = (a + (b - a) * permille // 1000 for a, b in zip(color, other, strict=True))
    return red, green, blue
