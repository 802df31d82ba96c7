"""Face detection in whole images: faces are found, cropped like the training images, classified and drawn.

The detector is dlib's frontal face detector (histograms of oriented gradients and a linear classifier). Its model is
compiled into the package, so nothing is downloaded. It needs the extra ``faces``.
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
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gender_classifier.common.colors import class_color
from gender_classifier.common.files import write_bytes
from gender_classifier.data.images import check_side, decode, to_rgb, to_square
from gender_classifier.errors import ImageError, InputError, needs_extra
from gender_classifier.predict.predictor import Prediction, Predictor, Source, map_in_order, try_load

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, px."""

# The detector finds faces of at least 80 px. Images are scaled to this many pixels, but at most doubled: this finds
# faces of 40 px in small images and limits time and memory for large ones.
_SEARCHED_PIXELS = 4_000_000
_SMALLEST_FACE = 80

# Margins of the training crops around the detector's box, as fractions of its width and height: medians over crops of
# the data set, which show more of the hair than the box does.
_LEFT, _TOP, _RIGHT, _BOTTOM = 0.03, -0.19, -0.035, 0.02

# File names have at most 255 bytes on most systems; this leaves room for suffixes.
_MAX_PART = 200

_GRAY = "#6E6E6E"

# The comment of a drawing, in the first bytes of its file. Drawings are not searched for faces again, and nothing else
# is replaced by one.
_COMMENT, _HEAD = b"gender-classifier predict --draw", 128


class FaceFinder:
    """A face detector that several threads may share."""

    def __init__(self) -> None:
        """Import the detector.

        Raises:
            MissingPackageError: dlib is not installed.
        """
        with needs_extra("faces"):
            import dlib  # noqa: PLC0415
        self._dlib: Any = dlib
        self._local = threading.local()  # a detector is not thread-safe

    def find(self, image: Image.Image) -> list[Box]:
        """Return the boxes of the faces in an RGB image, from left to right, framed like the training crops."""
        scale = min(2.0, math.sqrt(_SEARCHED_PIXELS / (image.width * image.height)))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if min(size) < _SMALLEST_FACE:
            return []
        searched = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        if not hasattr(self._local, "detector"):
            self._local.detector = self._dlib.get_frontal_face_detector()
        found = (
            (face.left() / scale, face.top() / scale, (face.right() + 1) / scale, (face.bottom() + 1) / scale)
            for face in self._local.detector(searched, 0)
        )
        boxes = (_crop_box(*edges, image.size) for edges in found)
        return sorted(box for box in boxes if box[0] < box[2] and box[1] < box[3])


def predict_faces(
    predictor: Predictor,
    sources: Iterable[Source],
    finder: FaceFinder,
    *,
    workers: int | None = None,
    show: Callable[[Image.Image, list[Prediction]], None] | None = None,
    leave_out: Callable[[str], None] | None = None,
) -> Iterator[Prediction]:
    """Yield one :class:`Prediction` per face, in the order of the sources and from left to right.

    An image without faces yields one prediction with neither label nor box; an unreadable source, one with its error;
    a drawing that :func:`save_drawn` wrote, none. Each worker holds one decoded image and its scaled copy.

    Args:
        predictor: classifies the crops.
        sources: whole images, consumed as the results are.
        finder: finds the faces.
        workers: threads; None for one per core.
        show: called by a worker with every readable image, upright and RGB, and its predictions.
        leave_out: called by a worker with the name of every drawing.
    """

    def load(data: bytes) -> Image.Image | None:
        if _COMMENT in data[:_HEAD]:
            return None
        return to_rgb(decode(data, max_pixels=predictor.max_pixels))

    def work(source: Source) -> list[Prediction]:
        name, content = source
        image = try_load(content, load)
        if isinstance(image, str):
            return [Prediction(name, error=image)]
        if image is None:
            if leave_out:
                leave_out(name)
            return []
        predictions = _classify(predictor, name, image, finder.find(image))
        if show:
            show(image, predictions)
        return predictions

    for predictions in map_in_order(work, sources, workers=workers):
        yield from predictions


def _classify(predictor: Predictor, name: str, image: Image.Image, boxes: list[Box]) -> list[Prediction]:
    if not boxes:
        return [Prediction(name)]
    found, crops = list[Prediction](), list[NDArray[np.uint8]]()
    for box in boxes:
        crop = image.crop(box)
        try:
            check_side(crop, predictor.min_side)
            crops.append(to_square(crop, predictor.image_size))
            found.append(Prediction(name, box=box))
        except ImageError as error:
            found.append(Prediction(name, error=f"a face: {error}", box=box))
    answers = iter(predictor.compute(np.stack(crops)) if crops else ())
    return [
        prediction if prediction.error else replace(predictor.describe(name, next(answers)), box=prediction.box)
        for prediction in found
    ]


def draw_faces(image: Image.Image, boxes: Iterable[tuple[Box, str, int | None]]) -> Image.Image:
    """Return a copy of ``image`` with labelled boxes.

    Args:
        image: RGB.
        boxes: box, label, and index of its class; None for a grey box.
    """
    drawn = image.copy()
    canvas = ImageDraw.Draw(drawn)
    thickness = max(2, round(max(image.size) / 400))
    for box, text, color in boxes:
        ink = _GRAY if color is None else class_color(color)
        canvas.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=ink, width=thickness)
        font = ImageFont.load_default(size=max(12, (box[2] - box[0]) // 8))
        left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
        height = bottom - top + 4
        corner = (box[0], box[1] - height if box[1] >= height else box[1])
        canvas.rectangle((*corner, corner[0] + right - left + 4, corner[1] + height), fill=ink)
        canvas.text((corner[0] + 2 - left, corner[1] + 2 - top), text, fill="white", font=font)
    return drawn


def save_drawn(folder: Path, name: str, drawn: Image.Image, taken: dict[str, str]) -> PurePath:
    """Write ``drawn`` as ``folder``/NAME.faces.jpg, with NAME made safe, and return its path relative to ``folder``.

    Args:
        folder: created if missing.
        name: name of the image, untrusted.
        drawn: RGB.
        taken: see :func:`place_drawn`.

    Raises:
        InputError: the file cannot be written, or exists and is no drawing.
    """
    place = place_drawn(name, taken)
    path = folder / place
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=90, comment=_COMMENT)
    try:
        if os.path.lexists(path) and not _is_drawing(path):
            raise InputError(f"{path}: exists and was not written by --draw; give --draw another folder")
        write_bytes(path, buffer.getvalue())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be written ({reason}); give --draw another folder") from None
    return place


def _is_drawing(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return _COMMENT in file.read(_HEAD)


def place_drawn(name: str, taken: dict[str, str]) -> PurePath:
    """Return a relative path for the drawing of ``name`` that stays below any folder it is joined to.

    Args:
        name: name of the image, untrusted.
        taken: paths used so far and the names they belong to; updated. If a name's path is taken by another name, a
            hash of the name is appended.
    """
    parts = _split_safely(name)
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    plain, length = parts[-1], 8
    while taken.setdefault(_fold("/".join(parts)), name) != name:
        parts[-1], length = f"{plain}.{digest[:length]}", length + 1
    return PurePath(*parts[:-1], f"{parts[-1]}.faces.jpg")


def _fold(path: str) -> str:
    """Return a key that is equal for paths that some file systems treat as one: by case or Unicode composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())


def _split_safely(name: str) -> list[str]:
    """Return the folders and file name of ``name`` as relative parts of at most ``_MAX_PART`` bytes each."""
    if name == "-":
        return ["stdin"]
    parts = [part for part in re.split(r"[/\\]", name) if part.strip("./:\\")] or ["image"]
    clean = (re.sub(r"[:\x00-\x1f]", "_", part) for part in parts)
    return [os.fsdecode(os.fsencode(part)[:_MAX_PART]) for part in clean]


def _crop_box(left: float, top: float, right: float, bottom: float, size: tuple[int, int]) -> Box:
    """Return the box of the training crop for a detector's box, clipped to the image."""
    width, height = right - left, bottom - top
    return (
        max(0, round(left + _LEFT * width)),
        max(0, round(top + _TOP * height)),
        min(size[0], round(right + _RIGHT * width)),
        min(size[1], round(bottom + _BOTTOM * height)),
    )
