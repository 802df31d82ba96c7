"""Inference with the exported model: one ONNX file, run with onnxruntime, Pillow and NumPy alone."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gender_classifier.common.paths import PRETRAINED, locate_pretrained
from gender_classifier.common.terminal import printable
from gender_classifier.common.threads import chunk, count_cores, find_thread_limit
from gender_classifier.data.images import Crop, to_array
from gender_classifier.errors import GenderClassifierError, ModelError
from gender_classifier.model.metadata import (
    THRESHOLD_KEY,
    UNFAMILIARITY,
    check_answer,
    check_classes,
    check_crop,
    check_image_size,
    check_metadata,
    check_min_side,
    check_ports,
    check_threshold,
    parse_json,
)
from gender_classifier.predict.limits import MAX_PIXELS

S = TypeVar("S")
T = TypeVar("T")

BATCH_SIZE = 64
"""Images. Batches of 32 are about 5 % slower; larger ones are no faster on CPUs and delay the results."""

Content = bytes | Callable[[], bytes]
"""An image file's content, or a function that reads it, which the decoding worker calls."""

Source = tuple[str, Content]
"""An image's name and content."""


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one image, or the reason why there is none.

    ``label`` is the most probable class and ``prob`` its probability; ``probs`` has one entry per class, in the order
    of ``Predictor.classes``. If the image cannot be read, ``error`` is the reason in one line, ``label`` and ``probs``
    are empty and ``prob`` is 0. For a face in a whole image, ``box`` is its left, top, right and bottom in px of the
    upright image. ``unfamiliar`` is True for an image unlike those that the model was trained on, whatever its label;
    None if the model cannot tell.
    """

    name: str
    label: str = ""
    prob: float = 0.0
    probs: tuple[float, ...] = ()
    error: str = ""
    box: tuple[int, int, int, int] | None = None
    unfamiliar: bool | None = None


class Answer(NamedTuple):
    """The model's outputs for one image: ``probs`` float32 (C,), and ``unfamiliar`` as in :class:`Prediction`."""

    probs: NDArray[np.float32]
    unfamiliar: bool | None


class Predictor:
    """A loaded model that classifies images.

    ``classes`` are the class names in column order and ``image_size`` is S in px. Images with a side shorter than
    ``min_side`` px or with more than ``max_pixels`` are rejected; those that are wider than the training images lose
    their sides, by ``crop``. ``metadata`` is the text that ``evaluate`` stored in the file: ``data_digest``,
    ``version``, ``min_side``, ``crop``, ``metrics`` (JSON), ``limits`` (Markdown). An image is unfamiliar if its output
    ``unfamiliarity`` exceeds ``unfamiliarity_threshold``, None for a file without that output.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, threads: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Load and check a model file.

        Args:
            path: an ONNX file written by ``evaluate``, such as ``models/model.onnx``, or ``pretrained``, the model that
                this package ships.
            threads: of onnxruntime; None for one per core.
            max_pixels: larger images are rejected.

        Raises:
            ModelError: the file is missing, damaged or no model of this project, or its metadata are invalid.
        """
        path = locate_pretrained("model.onnx") if path == PRETRAINED else Path(path)
        if path.is_dir():
            raise ModelError(f"{path}: is a folder; give the model file in it, such as {path / 'model.onnx'}")
        if not path.is_file():
            raise ModelError(f"{path}: no such file; give --model pretrained or another path, or make it: `dvc repro`")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or find_thread_limit() or 0
        # Idle threads that spin would take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's errors have no common base
            reason = "" if "INVALID_PROTOBUF" in str(error) else f" ({_one_line(error)})"
            raise ModelError(
                f"{path}: not a whole ONNX model{reason}; check the path, or make the model again with `dvc repro`"
            ) from None
        self.max_pixels = max_pixels
        self.classes, self.image_size = self._check(path)
        crop = check_crop(path, self.metadata.get("crop", "null"))  # missing in files of older versions
        self.crop = None if crop is None else Crop(*crop)
        self.min_side = check_min_side(path, self.metadata.get("min_side", "1"))  # missing in files of older versions

    def _check(self, path: Path) -> tuple[tuple[str, ...], int]:
        """Check metadata, inputs and outputs, run the model once, and return its classes and image size."""
        check_metadata(path, self.metadata)
        for key in ("classes", "image_size"):
            if key not in self.metadata:
                raise ModelError(f"{path}: its metadata lack {key!r}; give models/model.onnx of this project")
        classes = check_classes(path, parse_json(path, "classes", self.metadata["classes"]))
        text = self.metadata["image_size"]
        size = check_image_size(path, int(text) if text.isdecimal() and len(text) < 10 else text)
        ports = self._session.get_inputs(), self._session.get_outputs()
        check_ports(path, *ports, image_size=size, num_classes=len(classes))
        self._outputs = [port.name for port in ports[1]]
        self.unfamiliarity_threshold = check_threshold(
            path, self.metadata.get(THRESHOLD_KEY), has_output=UNFAMILIARITY in self._outputs
        )
        try:
            check_answer(path, self._run, image_size=size, num_classes=len(classes))
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base
            raise ModelError(f"{path}: cannot be run ({_one_line(error)}); make it again with `dvc repro`") from None
        return classes, size

    def prepare(self, data: bytes) -> NDArray[np.uint8]:
        """Decode an image file's content to uint8 (S, S, 3), as ``preprocess`` does after ``crop``.

        Raises:
            ImageError: the content is not a complete image, or the image is too small or too large.
        """
        return to_array(data, self.image_size, max_pixels=self.max_pixels, min_side=self.min_side, crop=self.crop)

    def compute_probs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 (N, S, S, 3), N at least 1, to calibrated probabilities float32 (N, C)."""
        return self._run(images)[0]

    def compute(self, images: NDArray[np.uint8]) -> list[Answer]:
        """Return the outputs for each of uint8 (N, S, S, 3), N at least 1."""
        outputs, threshold = self._run(images), self.unfamiliarity_threshold
        flags = [None] * len(images) if threshold is None else (outputs[1] > threshold).tolist()
        return list(map(Answer, outputs[0], flags))

    def _run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = self._session.run(self._outputs, {"images": images})
        return outputs

    def predict(
        self,
        sources: Iterable[Source | str | os.PathLike[str]],
        *,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> Iterator[Prediction]:
        """Give one :class:`Prediction` per source, in order; an unreadable image does not stop the others.

        Each worker reads, decodes and classifies whole batches, so build the predictor with ``threads=1``. At most
        ``2 * workers`` batches are in flight, and a worker holds one decoded image beside its batch of (S, S, 3), so
        memory does not grow with the number of sources.

        Args:
            sources: paths, or names with contents; consumed as the results are.
            batch_size: images.
            workers: threads; None for one per core.

        Raises:
            TypeError: ``sources`` is a single path or file; later: one of them is neither a path nor a pair.
        """
        if isinstance(sources, str | bytes | os.PathLike):
            what = "a single file's content" if isinstance(sources, bytes) else f"a single path, {sources!r}"
            raise TypeError(f"sources is {what}; give a list: predict([path]) or predict([(name, content)])")
        return self._predict_all(sources, batch_size, workers)

    def _predict_all(
        self, sources: Iterable[Source | str | os.PathLike[str]], batch_size: int, workers: int | None
    ) -> Iterator[Prediction]:
        batches = chunk(map(_as_source, sources), batch_size, first=1)
        for predictions in map_in_order(self._predict_batch, batches, workers=workers):
            yield from predictions

    def describe(self, name: str, answer: Answer) -> Prediction:
        """Build the :class:`Prediction` of one image."""
        probs, unfamiliar = answer
        best = int(probs.argmax())
        return Prediction(name, self.classes[best], float(probs[best]), tuple(map(float, probs)), unfamiliar=unfamiliar)

    def _predict_batch(self, batch: list[Source]) -> list[Prediction]:
        outcomes = [(name, try_load(content, self.prepare)) for name, content in batch]
        images = [image for _, image in outcomes if not isinstance(image, str)]
        answers = iter(self.compute(np.stack(images)) if images else ())
        return [
            Prediction(name, error=image) if isinstance(image, str) else self.describe(name, next(answers))
            for name, image in outcomes
        ]


def try_load(content: Content, load: Callable[[bytes], T]) -> T | str:
    """Return ``load`` of an image file's content, or the reason in one line, without a name, if it cannot be read."""
    try:
        return load(content if isinstance(content, bytes) else content())
    except GenderClassifierError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def map_in_order(function: Callable[[S], T], items: Iterable[S], *, workers: int | None = None) -> Iterator[T]:
    """Apply ``function`` to ``items`` on threads and yield the results in order, at most ``2 * workers`` ahead.

    An exception of ``function`` or of ``items`` reaches the caller after the results before it.
    """
    workers = workers or count_cores()
    remaining, wait = iter(items), True
    pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")
    waiting: deque[Future[T]] = deque(pool.submit(function, item) for item in islice(remaining, 2 * workers))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    except KeyboardInterrupt:
        wait = False  # a worker may be blocked on a terminal or a pipe
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:200])


def _as_source(source: Source | str | os.PathLike[str]) -> Source:
    if isinstance(source, tuple):
        return source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"a source is a path or a pair (name, content), not {type(source).__name__}")

    def read() -> bytes:
        from gender_classifier.data.folders import read_file  # noqa: PLC0415  needed for paths alone

        return read_file(Path(source))

    return os.fspath(source), read
