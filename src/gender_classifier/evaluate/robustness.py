"""What a model meets outside the data set: looser and tighter frames, other light, blur, compression. Pure.

Each corruption has three strengths, after Hendrycks & Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations" (2019), here for face crops of 64 px. They are made by Pillow on the finished uint8
image, and share no code with the augmentation of training.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from gender_classifier.metrics.scores import wilson_interval

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class RobustnessRow:
    """Accuracy on ``n`` corrupted images, with its 95 % interval.

    ``strength`` is 1 to 3, ``setting`` says what that is, ``drop`` what it costs.
    """

    corruption: str
    strength: int
    setting: str
    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    drop: float


def _zoom(image: Image.Image, factor: float) -> Image.Image:
    """Enlarge about the centre; below 1 the border is repeated outwards, as a looser frame would show more of it."""
    size = image.width
    pixels = np.asarray(image)
    margin = max(0, round(size * (1 / factor - 1) / 2))
    if margin:
        padded = Image.fromarray(np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
        return padded.resize((size, size), Image.Resampling.BILINEAR)
    edge = size * (1 - 1 / factor) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(edge, edge, size - edge, size - edge))


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


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    size = image.width
    padded = Image.fromarray(np.pad(np.asarray(image), ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), mode="edge"))
    turned = padded.rotate(degrees, Image.Resampling.BILINEAR)
    return turned.crop((size // 2, size // 2, size // 2 + size, size // 2 + size))


def _brighten(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _colour(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


CORRUPTIONS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], tuple[float, float, float], str]] = {
    "looser frame": (_zoom, (0.9, 0.8, 0.7), "face at {:.0%} of its size"),
    "tighter frame": (_zoom, (1.1, 1.25, 1.4), "face at {:.0%} of its size"),
    "rotated": (_rotate, (10, 20, 30), "{:g} degrees"),
    "darker": (_brighten, (0.7, 0.5, 0.3), "brightness × {:g}"),
    "brighter": (_brighten, (1.3, 1.6, 2.0), "brightness × {:g}"),
    "less contrast": (_contrast, (0.7, 0.5, 0.3), "contrast × {:g}"),
    "less colour": (_colour, (0.5, 0.25, 0.0), "saturation × {:g}"),
    "blurred": (_blur, (0.7, 1.2, 1.8), "Gaussian of {:g} px"),
    "compressed": (_jpeg, (50, 25, 10), "JPEG quality {:g}"),
    "fewer pixels": (_shrink, (40, 28, 20), "scaled up from {:g} px"),
}
"""Name: what is done, with which three settings, and how a table words them."""


def corrupt(images: Pixels, name: str, strength: int) -> Pixels:
    """Corrupt images the same way each.

    Args:
        images: uint8 (N, S, S, 3).
        name: a key of :data:`CORRUPTIONS`.
        strength: 1, 2 or 3.

    Returns:
        uint8 (N, S, S, 3).
    """
    change, settings, _ = CORRUPTIONS[name]
    return np.stack([np.asarray(change(Image.fromarray(image), settings[strength - 1])) for image in images])


def choose_images(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return up to ``most`` rows, evenly spread over the split, each class in proportion; equal input, equal rows."""
    if len(labels) <= most:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, most).round().astype(int)])


def measure_robustness(
    predict: Callable[[Pixels], NDArray[np.floating]],
    images: Pixels,
    labels: NDArray[np.int64],
    *,
    on_images: Callable[[int], object] = lambda _: None,
) -> Iterator[RobustnessRow]:
    """Yield a row for the clean images, then one for each corruption and strength.

    Args:
        predict: uint8 (N, S, S, 3) to logits or probabilities (N, C).
        images: uint8 (N, S, S, 3).
        labels: int (N,).
        on_images: told the number of images after each row.
    """

    def score(name: str, strength: int, setting: str, pixels: Pixels, clean: float | None = None) -> RobustnessRow:
        hits, total = int((predict(pixels).argmax(axis=1) == labels).sum()), len(labels)
        on_images(total)
        accuracy = hits / total
        drop = 0.0 if clean is None else clean - accuracy
        return RobustnessRow(name, strength, setting, total, accuracy, *wilson_interval(hits, total), drop)

    clean = score("none", 0, "", images)
    yield clean
    for name, (_, settings, wording) in CORRUPTIONS.items():
        for strength, setting in enumerate(settings, 1):
            corrupted = corrupt(images, name, strength)
            yield score(name, strength, wording.format(setting), corrupted, clean.accuracy)


def mean_accuracy(rows: Sequence[RobustnessRow]) -> float:
    """Return the mean over all corruptions and strengths, the clean images left out."""
    return float(np.mean([row.accuracy for row in rows if row.strength]))
