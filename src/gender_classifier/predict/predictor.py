"""The trained model in use: one ONNX file, read with onnxruntime, Pillow and NumPy alone."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gender_classifier.common.model_metadata import (
    check_answer,
    check_classes,
    check_image_size,
    check_metadata,
    check_min_side,
    check_ports,
    parse_json,
)
from gender_classifier.common.terminal import printable
from gender_classifier.common.threads import count_cores, find_thread_limit
from gender_classifier.data.images import to_array
from gender_classifier.errors import GenderClassifierError, ModelError
from gender_classifier.predict.limits import MAX_PIXELS

S = TypeVar("S")
T = TypeVar("T")

BATCH_SIZE = 64
"""Images. Batches of 32 are some 5 % slower; larger ones are no faster on the cores at hand, and hold results back."""

Source = tuple[str, bytes | Callable[[], bytes]]
"""An image's name, and its file's content or a function that reads it. Reading is left to the worker that decodes."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image, or why it says nothing.

    ``label`` is the likeliest class and ``prob`` its probability; ``probs`` has one for each class, in the order of
    ``Predictor.classes``. Of an image that cannot be read, ``error`` is the reason in one line, ``label`` is empty,
    ``prob`` is 0 and ``probs`` is empty. Of a face in a whole image, ``box`` is where: left, top, right, bottom in px
    of the upright image.
    """

    name: str
    label: str = ""
    prob: float = 0.0
    probs: tuple[float, ...] = ()
    error: str = ""
    box: tuple[int, int, int, int] | None = None


class Predictor:
    """Probabilities of images.

    ``classes`` are the names in the order of the columns, ``image_size`` is S in px, images with a side shorter than
    ``min_side`` or with more than ``max_pixels`` are refused, and ``metadata`` is all text that ``evaluate`` kept in
    the file: ``data_digest``, ``version``, ``min_side``, ``metrics`` (JSON), ``limits`` (Markdown).
    """

    def __init__(
        self, path: str | os.PathLike[str], *, threads: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Load ``path``.

        Args:
            path: what ``evaluate`` wrote, ``models/model.onnx``.
            threads: of onnxruntime; None for one a core.
            max_pixels: larger images are refused.

        Raises:
            ModelError: the file is missing, damaged, no model of this project, or one that says what cannot be.
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such file; run `dvc repro`, or name another with --model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or find_thread_limit() or 0
        # Idle threads that spin take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's errors have no common base
            raise ModelError(
                f"{path}: not a whole ONNX model ({_one_line(error)}); make it again with `dvc repro`"
            ) from None
        self.max_pixels = max_pixels
        self.classes, self.image_size = self._check(path)
        self.min_side = check_min_side(path, self.metadata.get("min_side", "1"))  # files of older versions have none

    def _check(self, path: Path) -> tuple[tuple[str, ...], int]:
        """Return classes and image size of a file that is what it says, and can be run."""
        check_metadata(path, self.metadata)
        for key in ("classes", "image_size"):
            if key not in self.metadata:
                raise ModelError(f"{path}: its metadata lack {key!r}; give models/model.onnx of this project")
        classes = check_classes(path, parse_json(path, "classes", self.metadata["classes"]))
        text = self.metadata["image_size"]
        size = check_image_size(path, int(text) if text.isdecimal() and len(text) < 10 else text)
        ports = self._session.get_inputs(), self._session.get_outputs()
        check_ports(path, *ports, image_size=size, num_classes=len(classes))
        try:
            check_answer(path, self.compute_probs, image_size=size, num_classes=len(classes))
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base
            raise ModelError(f"{path}: cannot be run ({_one_line(error)}); make it again with `dvc repro`") from None
        return classes, size

    def prepare(self, data: bytes) -> NDArray[np.uint8]:
        """Turn an image file's content into uint8 (S, S, 3), exactly as ``preprocess`` does.

        Raises:
            ImageError: it is no whole image, too small or too large.
        """
        return to_array(data, self.image_size, max_pixels=self.max_pixels, min_side=self.min_side)

    def compute_probs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 (N, S, S, 3), N at least 1, to calibrated probabilities float32 (N, C)."""
        probs: NDArray[np.float32] = self._session.run(["probs"], {"images": images})[0]
        return probs

    def predict(
        self,
        sources: Iterable[Source | str | os.PathLike[str]],
        *,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> Iterator[Prediction]:
        """Yield one :class:`Prediction` a source, in order; an image that cannot be read does not stop the rest.

        Each worker reads, decodes and classifies a batch of its own, so no core waits for another: build the predictor
        with ``threads=1``. At most ``2 * workers`` batches are in flight, and a worker holds one decoded image at a
        time beside its batch of (S, S, 3), so memory does not grow with the number of sources.

        Args:
            sources: paths, or names with contents; consumed as the results are.
            batch_size: images.
            workers: threads; None for one a core.
        """

        def classify(batch: list[Source]) -> list[Prediction]:
            return self._predict_batch(batch)

        for predictions in map_in_order(classify, _grow_batches(map(_as_source, sources), batch_size), workers=workers):
            yield from predictions

    def describe(self, name: str, probs: NDArray[np.float32]) -> Prediction:
        """Turn one image's probabilities, float32 (C,), into a :class:`Prediction`."""
        best = int(probs.argmax())
        return Prediction(name, self.classes[best], float(probs[best]), tuple(map(float, probs)))

    def _predict_batch(self, batch: list[Source]) -> list[Prediction]:
        images, outcomes = [], []
        for _, data in batch:
            try:
                images.append(self.prepare(data if isinstance(data, bytes) else data()))
                outcomes.append("")
            except (GenderClassifierError, OSError) as error:
                outcomes.append(explain(error))
        rows = iter(self.compute_probs(np.stack(images))) if images else iter(())
        return [
            Prediction(name, error=error) if error else self.describe(name, next(rows))
            for (name, _), error in zip(batch, outcomes, strict=True)
        ]


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:200])


def _as_source(source: Source | str | os.PathLike[str]) -> Source:
    if isinstance(source, tuple):
        return source

    def read() -> bytes:
        from gender_classifier.data.folders import read_file  # noqa: PLC0415  needed for paths alone

        return read_file(Path(source))

    return os.fspath(source), read


def explain(error: GenderClassifierError | OSError) -> str:
    """Say in one line why an image could not be read, without its name."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    return str(error)


def map_in_order(function: Callable[[S], T], items: Iterable[S], *, workers: int | None = None) -> Iterator[T]:
    """Apply ``function`` to ``items`` on threads and yield the results in order, at most ``2 * workers`` at a time.

    An error of ``function`` or of ``items`` reaches the caller, after the results before it.
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
        wait = False  # a worker may hang on a terminal or a pipe
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def _grow_batches(sources: Iterable[Source], batch_size: int) -> Iterator[list[Source]]:
    """Cut ``sources`` into batches of 1, 2, 4, ... images: the first rows come soon, and few images share the cores."""
    remaining, size, given = iter(sources), 1, 0
    while batch := list(islice(remaining, size)):
        yield batch
        given += 1
        if given % 4 == 0:
            size = min(2 * size, batch_size)
