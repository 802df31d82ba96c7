"""Checks of a model file's metadata and graph before use: the file may come from a registry or a download."""

import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gender_classifier.errors import ModelError

MAX_IMAGE_SIZE = 1024
"""px a side; 64 images are 200 MB."""

MAX_CLASSES = 1000
MAX_METADATA_BYTES = 2**20

UNFAMILIARITY = "unfamiliarity"
"""The second output; files of older versions have none."""

THRESHOLD_KEY = "unfamiliarity_threshold"
"""The metadata entry that says from which ``unfamiliarity`` on an image counts as unfamiliar."""

_MAX_SIDE = 65_535  # px; what a JPEG can hold
_MAX_NAME = 100  # characters of a class name
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))  # Unicode categories: control, direction, no character
_LAYOUT = frozenset("\n\r\t")


def check_metadata(origin: object, metadata: Mapping[str, str]) -> None:
    """Refuse metadata that are too large, or hold characters unsafe for a terminal or a page.

    Args:
        origin: the file, for the error.
        metadata: all of its text, which may have line breaks and tabs.

    Raises:
        ModelError: names the entry.
    """
    size = sum(len(key) + len(value) for key, value in metadata.items())
    if size > MAX_METADATA_BYTES:
        raise ModelError(f"{origin}: has {size:,} characters of metadata, more than {MAX_METADATA_BYTES:,}; {_GIVE}")
    for key, value in metadata.items():
        for char in "" if (key + value).isprintable() else key + value:
            if not char.isprintable() and char not in _LAYOUT and unicodedata.category(char) in _HIDDEN:
                raise ModelError(f"{origin}: its metadata {key!a} hold the character {char!a}, not printable; {_GIVE}")


def check_classes(origin: object, classes: object) -> tuple[str, ...]:
    """Return ``classes`` if they are 2 to :data:`MAX_CLASSES` different names, each a printable line.

    Raises:
        ModelError: they are anything else.
    """
    if not isinstance(classes, list | tuple) or not 2 <= len(classes) <= MAX_CLASSES:
        raise ModelError(f"{origin}: its classes are not a list of 2 to {MAX_CLASSES:,} names; {_GIVE}")
    for name in classes:
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
            raise ModelError(
                f"{origin}: has the class {_shorten(name)}; a name is 1 to {_MAX_NAME} printable characters; {_GIVE}"
            )
    if len(set(classes)) < len(classes):
        raise ModelError(f"{origin}: lists a class twice, {_shorten(list(classes))}; {_GIVE}")
    return tuple(classes)


def check_image_size(origin: object, size: object, *, least: int = 8) -> int:
    """Return ``size`` if it is a whole number of px, from ``least`` to :data:`MAX_IMAGE_SIZE`.

    Raises:
        ModelError: it is anything else.
    """
    if type(size) is not int or not least <= size <= MAX_IMAGE_SIZE:
        raise ModelError(
            f"{origin}: has the image size {_shorten(size)}; it is {least} to {MAX_IMAGE_SIZE:,} px; {_GIVE}"
        )
    return size


def check_min_side(origin: object, text: str) -> int:
    """Return the shortest side of an image that the model takes, a whole number of px above 0.

    Raises:
        ModelError: ``text`` is something else.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 0 < int(text) <= _MAX_SIDE):
        raise ModelError(f"{origin}: has the min_side {_shorten(text)}; it is 1 to {_MAX_SIDE:,} px; {_GIVE}")
    return int(text)


def check_threshold(origin: object, text: str | None, *, has_output: bool) -> float | None:
    """Return the threshold of ``unfamiliarity``, above 0; None for a graph without that output.

    Args:
        origin: the file, for the error.
        text: the metadata entry; None if there is none.
        has_output: whether the graph has the output.

    Raises:
        ModelError: the entry is no such number, or there is only one of output and entry.
    """
    if text is None and not has_output:
        return None
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.nan
    if not has_output or not 0 < value < math.inf:
        has = "has" if has_output else "lacks"
        raise ModelError(f"{origin}: {has} the output {UNFAMILIARITY} and has the threshold {_shorten(text)}; {_GIVE}")
    return value


def check_crop(origin: object, text: str) -> tuple[float, float] | None:
    """Return which images lose their sides before they are resized, as in ``data.images.Crop``; None for none.

    Raises:
        ModelError: ``text`` is neither JSON's ``null`` nor a list of the two numbers.
    """
    raw = parse_json(origin, "crop", text)
    if raw is None:
        return None
    is_pair = isinstance(raw, list) and len(raw) == 2 and all(type(value) in (int, float) for value in raw)
    if not is_pair or not 0.01 <= raw[1] <= raw[0] <= 100:  # NaN is refused as well
        raise ModelError(f"{origin}: has the crop {_shorten(text)}; it is null or [above, aspect]; {_GIVE}")
    return float(raw[0]), float(raw[1])


def parse_json(origin: object, what: str, text: str) -> Any:
    """Parse ``text`` as JSON.

    Raises:
        ModelError: it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"{origin}: its {what} are not JSON, {_shorten(text)}; {_GIVE}") from None


class Port(Protocol):
    """An input or output of a model, as onnxruntime describes it."""

    name: str
    type: str
    shape: Sequence[object]


def check_ports(
    origin: object, inputs: Sequence[Port], outputs: Sequence[Port], *, image_size: int, num_classes: int
) -> None:
    """Refuse a graph that does not turn uint8 ``images`` (N, S, S, 3) into float32 ``probs`` (N, C), for any N.

    It may have a second output, float32 ``unfamiliarity`` (N,).

    Raises:
        ModelError: names the ports found and those needed.
    """
    for what, ports, name, kind, sizes in (
        ("inputs", inputs, "images", "tensor(uint8)", (image_size, image_size, 3)),
        ("outputs", outputs[:1], "probs", "tensor(float)", (num_classes,)),
        ("second output", outputs[1:] or None, UNFAMILIARITY, "tensor(float)", ()),
    ):
        if ports is None:
            continue
        found = [(port.name, port.type, list(port.shape)) for port in ports]
        if len(found) != 1 or found[0][:2] != (name, kind) or not _fits(found[0][2], sizes):
            raise ModelError(
                f"{origin}: has the {what} {_shorten(found)}; this needs {name}, {kind}, {['any', *sizes]}; {_GIVE}"
            )


def check_answer(
    origin: object,
    compute: Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]],
    *,
    image_size: int,
    num_classes: int,
) -> None:
    """Run a model on three images, and refuse it if its outputs are not probabilities, and distances if it has any.

    Raises:
        ModelError: names the outputs.
    """
    images = np.zeros((3, image_size, image_size, 3), np.uint8)
    images[1], images[2] = 255, np.arange(3)
    probs, *others = compute(images)
    if probs.shape != (3, num_classes):
        raise ModelError(f"{origin}: gives {list(probs.shape)} numbers for 3 images, not {[3, num_classes]}; {_GIVE}")
    if not (np.isfinite(probs).all() and (probs >= -1e-3).all() and np.allclose(probs.sum(axis=1), 1, atol=1e-2)):
        raise ModelError(f"{origin}: gives {_shorten(probs[0].tolist())}, which are not probabilities; {_GIVE}")
    for scores in others:
        if scores.shape != (3,) or not (np.isfinite(scores).all() and (scores >= 0).all()):
            raise ModelError(f"{origin}: gives the {UNFAMILIARITY} {_shorten(scores.tolist())} of 3 images; {_GIVE}")


_GIVE = "give a model that `dvc repro` made"


def _fits(shape: Sequence[object], sizes: Sequence[int]) -> bool:
    """Return True for a shape of one open dimension, then ``sizes`` or open dimensions."""
    if len(shape) != len(sizes) + 1 or isinstance(shape[0], int):
        return False
    return all(size == wanted or not isinstance(size, int) for size, wanted in zip(shape[1:], sizes, strict=True))


def _shorten(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:80] + "..."
