"""Changes to a finished face crop that a model meets outside its data set: framing, light and detail, occlusion. Pure.

The ten of :data:`ROBUST` are made by Pillow image by image, at three strengths, after Hendrycks &
Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations" (2019). The others are
made by NumPy on all images at once, at one strength each. None shares code with the augmentation of training, but
``train.robust_bias`` is fitted to val with the same.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

Pixels = NDArray[np.uint8]

FRAMING, OCCLUSION, OTHER = "framing", "occlusion", "rotation, light, detail"

_GREY = 128
_BLACK = 16
_MASK_BLUE = (160, 196, 216)  # a surgical mask


@dataclass(frozen=True)
class Corruption:
    """A change to images.

    Attributes:
        group: :data:`FRAMING`, :data:`OCCLUSION` or :data:`OTHER`.
        change: uint8 (N, S, S, 3) and a setting to the changed images, of the same shape and type.
        settings: one for each strength, the mildest first.
        wording: what a setting means, for tables; ``{}`` is the setting.
    """

    group: str
    change: Callable[[Pixels, float], Pixels]
    settings: tuple[float, ...]
    wording: str


def corrupt(images: Pixels, name: str, strength: int) -> Pixels:
    """Corrupt images; equal input, equal output.

    Args:
        images: uint8 (N, S, S, 3).
        name: a key of :data:`CORRUPTIONS`.
        strength: 1 or more, up to the number of its settings.

    Returns:
        uint8 (N, S, S, 3).
    """
    corruption = CORRUPTIONS[name]
    return corruption.change(images, corruption.settings[strength - 1])


def choose_images(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return up to ``most`` rows, evenly spread over the split, each class in proportion; equal input, equal rows."""
    if len(labels) <= most:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, most).round().astype(int)])


def corrupt_in_turn(images: Pixels, labels: NDArray[np.int64], group: str) -> Pixels:
    """Corrupt each image once, by the group's corruptions and strengths in turn, and so the images of each class.

    Args:
        images: uint8 (N, S, S, 3).
        labels: int (N,).
        group: of :data:`CORRUPTIONS`.

    Returns:
        uint8 (N, S, S, 3), in the order of ``images``.
    """
    by_class = np.argsort(labels, kind="stable")
    chosen = [(name, strength) for name, corruption in CORRUPTIONS.items() if corruption.group == group
              for strength, _ in enumerate(corruption.settings, 1)]  # fmt: skip
    corrupted = np.empty_like(images)
    for turn, (name, strength) in enumerate(chosen[: len(images)]):
        rows = by_class[turn :: len(chosen)]
        corrupted[rows] = corrupt(images[rows], name, strength)
    return corrupted


def _each(change: Callable[[Image.Image, float], Image.Image]) -> Callable[[Pixels, float], Pixels]:
    """Return a function of all images from one of a single image."""

    def change_all(images: Pixels, setting: float) -> Pixels:
        return np.stack([np.asarray(change(Image.fromarray(image), setting)) for image in images])

    return change_all


def _pad(images: Pixels, margin: int) -> Pixels:
    """Repeat the border outwards by ``margin`` px; for all images at once, which takes half the time."""
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")


def _zoom(images: Pixels, factor: float) -> Pixels:
    """Enlarge about the centre; below 1 the border is repeated outwards, as a looser frame would show more of it."""
    size = images.shape[1]
    margin = max(0, round(size * (1 / factor - 1) / 2))
    edge = max(0.0, size * (1 - 1 / factor) / 2)
    box = (edge, edge, size - edge, size - edge) if not margin else None

    def resize(image: Image.Image, _: float) -> Image.Image:
        return image.resize((size, size), Image.Resampling.BILINEAR, box=box)

    return _each(resize)(_pad(images, margin) if margin else images, factor)


def _blur(image: Image.Image, radius: float) -> Image.Image:
    blurred: Image.Image = image.filter(ImageFilter.GaussianBlur(radius))
    return blurred


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality))
    again: Image.Image = Image.open(buffer).convert("RGB")
    return again


def _shrink(image: Image.Image, side: float) -> Image.Image:
    small = image.resize((int(side), int(side)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _rotate(images: Pixels, degrees: float) -> Pixels:
    size = images.shape[1]
    frame = (size // 2, size // 2, size // 2 + size, size // 2 + size)

    def turn(image: Image.Image, degrees: float) -> Image.Image:
        return image.rotate(degrees, Image.Resampling.BILINEAR).crop(frame)

    return _each(turn)(_pad(images, size // 2), degrees)


def _brighten(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _colour(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _move(images: Pixels, share: float, axis: int) -> Pixels:
    """Move along an axis by a share of the side, forwards if positive; the border left behind is repeated."""
    return _interpolate(images, np.arange(images.shape[axis]) - share * images.shape[axis], axis)


def _raise(images: Pixels, share: float) -> Pixels:
    return _move(images, -share, axis=1)


def _move_aside(images: Pixels, share: float) -> Pixels:
    """Move every second image to the right, and the others to the left."""
    moved = np.empty_like(images)
    for start, direction in ((0, -1), (1, 1)):
        moved[start::2] = _move(images[start::2], direction * share, axis=2)
    return moved


def _stretch(images: Pixels, factor: float, axis: int) -> Pixels:
    """Stretch about the centre along an axis; what leaves the frame is cut off."""
    middle = (images.shape[axis] - 1) / 2
    return _interpolate(images, (np.arange(images.shape[axis]) - middle) / factor + middle, axis)


def _interpolate(images: Pixels, places: NDArray[np.float64], axis: int) -> Pixels:
    """Sample images linearly at ``places`` along an axis; outside, the border is repeated."""
    places = places.clip(0, images.shape[axis] - 1)
    lower = places.astype(np.int64)
    upper = np.minimum(lower + 1, images.shape[axis] - 1)
    shape = [1] * images.ndim
    shape[axis] = -1
    # Sums of products of whole numbers are exact, and so equal on every processor; they stay below 2**16.
    weights = np.round((places - lower) * 256).astype(np.uint16).reshape(shape)
    mixed = images.take(lower, axis) * (256 - weights) + images.take(upper, axis) * weights
    sampled: Pixels = ((mixed + 128) >> 8).astype(np.uint8)
    return sampled


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return row and column of each pixel's centre, as shares of the side: float64 (S, 1) and (1, S)."""
    places = (np.arange(size) + 0.5) / size
    return places[:, None], places[None, :]


def _box(size: int, top: float, bottom: float, left: float = 0, right: float = 1) -> NDArray[np.bool_]:
    """Return the pixels in a rectangle given as shares of the side, bool (S, S)."""
    rows, columns = _grid(size)
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)


def _ellipse(size: int, row: float, column: float, height: float, width: float) -> NDArray[np.bool_]:
    rows, columns = _grid(size)
    return ((rows - row) / (height / 2)) ** 2 + ((columns - column) / (width / 2)) ** 2 < 1


def _paint(images: Pixels, mask: NDArray[np.bool_], color: object) -> Pixels:
    """Paint the pixels of ``mask``, bool (S, S); ``color`` broadcasts to (N, 3)."""
    painted = images.copy()
    painted[:, mask] = np.broadcast_to(np.asarray(color, dtype=np.uint8), (len(images), 3))[:, None]
    return painted


def _cover_eyes(images: Pixels, height: float) -> Pixels:
    """Draw a bar over the eyes, which lie at 0.38 of the height in the Kaggle set's crops and at 0.47 in drawn ones."""
    return _paint(images, _box(images.shape[1], 0.4 - height / 2, 0.4 + height / 2, 0.08, 0.92), _BLACK)


def _mask_lower(images: Pixels, share: float) -> Pixels:
    return _paint(images, _box(images.shape[1], 1 - share, 1, 0.1, 0.9), _MASK_BLUE)


def _hide_upper(images: Pixels, share: float) -> Pixels:
    return _paint(images, _box(images.shape[1], 0, share), _GREY)


def _hide_lower(images: Pixels, share: float) -> Pixels:
    return _paint(images, _box(images.shape[1], 1 - share, 1), _GREY)


def _cover_by_hand(images: Pixels, width: float) -> Pixels:
    """Cover cheek and mouth with a palm and four fingers in the mean colour of each image's centre: nobody's skin."""
    size = images.shape[1]
    mask = _ellipse(size, 0.88, 0.36, 0.5, width)
    for number, top in enumerate((0.52, 0.45, 0.47, 0.55)):
        left = 0.36 + width * (number / 4 - 0.5)
        mask |= _box(size, top, 0.88, left + 0.01, left + width / 4 - 0.01)
    centre = images[:, size // 4 : size - size // 4, size // 4 : size - size // 4]
    return _paint(images, mask, centre.mean(axis=(1, 2), dtype=np.float64).round())


CORRUPTIONS: dict[str, Corruption] = {
    "looser frame": Corruption(FRAMING, _zoom, (0.9, 0.8, 0.7), "face at {:.0%}, edge repeated"),
    "tighter frame": Corruption(FRAMING, _zoom, (1.1, 1.25, 1.4), "face at {:.0%} of its size"),
    "face higher": Corruption(FRAMING, _raise, (0.1,), "by {:.0%}, edge repeated"),
    "face lower": Corruption(FRAMING, partial(_move, axis=1), (0.1,), "by {:.0%}, edge repeated"),
    "face aside": Corruption(FRAMING, _move_aside, (0.1,), "left or right by {:.0%}, edge repeated"),
    "stretched in height": Corruption(FRAMING, partial(_stretch, axis=1), (1.15,), "height × {:g}, rest cut off"),
    "stretched in width": Corruption(FRAMING, partial(_stretch, axis=2), (1.15,), "width × {:g}, rest cut off"),
    "rotated": Corruption(OTHER, _rotate, (10, 20, 30), "{:g} degrees"),
    "darker": Corruption(OTHER, _each(_brighten), (0.7, 0.5, 0.3), "brightness × {:g}"),
    "brighter": Corruption(OTHER, _each(_brighten), (1.3, 1.6, 2.0), "brightness × {:g}"),
    "less contrast": Corruption(OTHER, _each(_contrast), (0.7, 0.5, 0.3), "contrast × {:g}"),
    "less colour": Corruption(OTHER, _each(_colour), (0.5, 0.25, 0.0), "saturation × {:g}"),
    "blurred": Corruption(OTHER, _each(_blur), (0.7, 1.2, 1.8), "Gaussian of {:g} px"),
    "compressed": Corruption(OTHER, _each(_jpeg), (50, 25, 10), "JPEG quality {:g}"),
    "fewer pixels": Corruption(OTHER, _each(_shrink), (40, 28, 20), "scaled up from {:g} px"),
    "sunglasses": Corruption(OCCLUSION, _cover_eyes, (0.2,), "a black bar, {:.0%} of the height"),
    "mask": Corruption(OCCLUSION, _mask_lower, (1 / 3,), "lower {:.0%}, pale blue"),
    "hand": Corruption(OCCLUSION, _cover_by_hand, (0.46,), "over mouth and cheek, mean colour"),
    "upper half hidden": Corruption(OCCLUSION, _hide_upper, (0.5,), "grey"),
    "lower half hidden": Corruption(OCCLUSION, _hide_lower, (0.5,), "grey"),
}  # fmt: skip
"""What is done to images, by name, in the order of tables."""

ROBUST = (
    "looser frame", "tighter frame", "rotated", "darker", "brighter", "less contrast", "less colour", "blurred",
    "compressed", "fewer pixels",
)  # fmt: skip
"""The corruptions of ``robust_accuracy``, which older models were measured with."""
