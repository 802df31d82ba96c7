"""The trained model in use: one ONNX file, read with onnxruntime, Pillow and NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gender_classifier.errors import ModelError
from gender_classifier.images import to_array

MAX_PIXELS = 50_000_000
"""px; a larger picture is refused before it is decoded, as by ``verify``'s default."""


class Predictor:
    """Probabilities of pictures.

    ``classes`` are the names in the order of the columns, ``image_size`` is S in px, and ``metadata`` is all text that
    ``evaluate`` kept in the file: ``data_digest``, ``version``, ``metrics`` (JSON), ``limits`` (Markdown).
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Load ``path``.

        Args:
            path: what ``evaluate`` wrote, ``models/model.onnx``.
            threads: of onnxruntime; None for one a core.

        Raises:
            ModelError: the file is missing, damaged, or no model of this project.
        """
        if not path.is_file():
            raise ModelError(f"{path}: no such file; run `dvc repro`, or name another with --model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Idle threads that spin take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
            self.classes: tuple[str, ...] = tuple(json.loads(self.metadata["classes"]))
            self.image_size = int(self.metadata["image_size"])
        except KeyError as error:
            raise ModelError(f"{path}: its metadata lack {error}; give models/model.onnx of this project") from None
        except Exception as error:  # onnxruntime's errors have no common base
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{path}: not a whole ONNX model ({reason}); make it anew with `dvc repro`") from None

    def prepare(self, data: bytes) -> NDArray[np.uint8]:
        """Turn a picture file's content into uint8 (S, S, 3), exactly as ``preprocess`` does.

        Raises:
            ImageError: it is no whole picture.
        """
        return to_array(data, self.image_size, max_pixels=MAX_PIXELS)

    def compute_probs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 (N, S, S, 3), N at least 1, to calibrated probabilities float32 (N, C)."""
        probs: NDArray[np.float32] = self._session.run(["probs"], {"images": images})[0]
        return probs
