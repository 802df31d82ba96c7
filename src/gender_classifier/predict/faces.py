"""Faces in whole images: found, cropped as the training images are, classified, and drawn.

The detector is dlib's frontal face detector (histograms of oriented gradients and a linear classifier); its model is
compiled into the package, so nothing is fetched. Install the project with its extra ``faces``.
"""

import hashlib
import io
import math
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gender_classifier.common.files import write_bytes
from gender_classifier.data.images import check_side, decode, to_rgb, to_square
from gender_classifier.errors import GenderClassifierError, ImageError, InputError, ModelError
from gender_classifier.predict.predictor import Prediction, Predictor, Source, explain, map_in_order

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, px."""

# The detector sees faces of 80 px and more. Images are brought to this many pixels for it, but at most doubled: that
# finds faces of 40 px in small images, and bounds time and memory for large ones.
_SEARCHED_PIXELS = 4_000_000
_SMALLEST_FACE = 80

# What the training crops show around the detector's box, in widths and heights of that box: medians over crops of the
# data set (it is narrower than the crops at the sides, and lower at the top, where the crops show the hair).
_LEFT, _TOP, _RIGHT, _BOTTOM = 0.03, -0.19, -0.035, 0.02

# A file's name has at most 255 bytes on most systems; this leaves room for suffixes.
_MAX_PART = 200

_COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167))  # told apart by colour-blind people too
_GREY = (110, 110, 110)


class FaceFinder:
    """Boxes of the faces in an image; one may be used by many threads."""

    def __init__(self) -> None:
        """Check that the detector is installed.

        Raises:
            ModelError: it is not.
        """
        try:
            import dlib  # noqa: PLC0415  an extra
        except ImportError:
            raise ModelError("faces: dlib is not installed; pip install 'gender-classifier[faces]'") from None
        self._dlib: Any = dlib
        self._own = threading.local()  # a detector keeps the image it works on

    def find(self, image: Image.Image) -> list[Box]:
        """Return where the faces of an RGB image are, cropped as the training images are, from left to right."""
        scale = min(2.0, math.sqrt(_SEARCHED_PIXELS / (image.width * image.height)))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if min(size) < _SMALLEST_FACE:
            return []
        searched = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        if not hasattr(self._own, "detector"):
            self._own.detector = self._dlib.get_frontal_face_detector()
        found = self._own.detector(searched, 0)
        boxes = (
            _crop_box(
                one.left() / scale, one.top() / scale, (one.right() + 1) / scale, (one.bottom() + 1) / scale, image.size
            )
            for one in found
        )
        return sorted(box for box in boxes if box[0] < box[2] and box[1] < box[3])


def predict_faces(
    predictor: Predictor,
    sources: Iterable[Source],
    finder: FaceFinder,
    *,
    workers: int | None = None,
    show: Callable[[Image.Image, list[Prediction]], None] | None = None,
) -> Iterator[Prediction]:
    """Yield one :class:`Prediction` a face, source after source and from left to right.

    An image without any face gives one that has neither label nor box; a source that cannot be read, one with its
    error. A worker holds one decoded image at a time, and its copy for the search.

    Args:
        predictor: classifies the crops.
        sources: whole images, taken up as results are.
        finder: finds the crops.
        workers: threads; None for one a core.
        show: called by a worker with every upright RGB image that could be read, and its predictions.
    """

    def work(source: Source) -> list[Prediction]:
        name, data = source
        try:
            image = to_rgb(decode(data if isinstance(data, bytes) else data(), max_pixels=predictor.max_pixels))
        except (GenderClassifierError, OSError) as error:
            return [Prediction(name, error=explain(error))]
        predictions = _classify(predictor, name, image, finder.find(image))
        if show:
            show(image, predictions)
        return predictions

    for predictions in map_in_order(work, sources, workers=workers):
        yield from predictions


def _classify(predictor: Predictor, name: str, image: Image.Image, boxes: list[Box]) -> list[Prediction]:
    if not boxes:
        return [Prediction(name)]
    found: list[Prediction] = []
    crops = []
    for box in boxes:
        crop = image.crop(box)
        try:
            check_side(crop, predictor.min_side)
            crops.append(to_square(crop, predictor.image_size))
            found.append(Prediction(name, box=box))
        except ImageError as error:
            found.append(Prediction(name, error=f"a face: {explain(error)}", box=box))
    probs = iter(predictor.compute_probs(np.stack(crops)) if crops else ())
    return [one if one.error else replace(predictor.describe(name, next(probs)), box=one.box) for one in found]


def draw_faces(image: Image.Image, boxes: Iterable[tuple[Box, str, int | None]]) -> Image.Image:
    """Return a copy of ``image`` with boxes and texts.

    Args:
        image: RGB.
        boxes: box, text, and number of its colour; None for grey.
    """
    drawn = image.copy()
    canvas = ImageDraw.Draw(drawn)
    thickness = max(2, round(max(image.size) / 400))
    for box, text, colour in boxes:
        ink = _GREY if colour is None else _COLOURS[colour % len(_COLOURS)]
        canvas.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=ink, width=thickness)
        font = ImageFont.load_default(size=max(12, (box[2] - box[0]) // 8))
        left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
        height = bottom - top + 4
        corner = (box[0], box[1] - height if box[1] >= height else box[1])
        canvas.rectangle((*corner, corner[0] + right - left + 4, corner[1] + height), fill=ink)
        canvas.text((corner[0] + 2 - left, corner[1] + 2 - top), text, fill="white", font=font)
    return drawn


def save_drawn(folder: Path, name: str, drawn: Image.Image, taken: dict[str, str] | None = None) -> PurePath:
    """Write ``drawn`` as ``folder``/NAME.faces.jpg, NAME without what would lead out of ``folder``.

    Returns the path below ``folder``.

    Args:
        folder: made where it is missing.
        name: of the image; not trusted.
        drawn: RGB.
        taken: as in :func:`place_drawn`.

    Raises:
        InputError: it cannot be written.
    """
    place = place_drawn(name, {} if taken is None else taken)
    path = folder / place
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=90)
    try:
        write_bytes(path, buffer.getvalue())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be written ({reason}); give --draw another folder") from None
    return place


def place_drawn(name: str, taken: dict[str, str]) -> PurePath:
    """Return the relative path of the drawing of ``name``, which stays below any folder it is joined to.

    Args:
        name: of the image; not trusted.
        taken: paths that this run has given out, and the names they are for; updated. Of two names that would share a
            path, the later one's gets a hash of the name.
    """
    parts = _split_safely(name)
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    plain, length = parts[-1], 8
    while taken.setdefault(_fold("/".join(parts)), name) != name:
        parts[-1], length = f"{plain}.{digest[:length]}", length + 1
    return PurePath(*parts[:-1], f"{parts[-1]}.faces.jpg")


def _fold(path: str) -> str:
    """Return what is equal for names that some file systems take for one: of other capitals, or composed otherwise."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())


def _split_safely(name: str) -> list[str]:
    """Return the folders and the file of ``name``, relative, each of at most ``_MAX_PART`` bytes."""
    if name == "-":
        return ["stdin"]
    parts = [part for part in re.split(r"[/\\]", name) if part.strip("./:\\")] or ["image"]
    clean = (re.sub(r"[:\x00-\x1f]", "_", part) for part in parts)
    return [os.fsdecode(os.fsencode(part)[:_MAX_PART]) for part in clean]


def _crop_box(left: float, top: float, right: float, bottom: float, size: tuple[int, int]) -> Box:
    """Turn the detector's box into that of a training crop, within the image."""
    width, height = right - left, bottom - top
    return (
        max(0, round(left + _LEFT * width)),
        max(0, round(top + _TOP * height)),
        min(size[0], round(right + _RIGHT * width)),
        min(size[1], round(bottom + _BOTTOM * height)),
    )
