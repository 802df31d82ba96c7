"""The model file: weights and what rebuilds the network, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gender_classifier.common.files import write_bytes
from gender_classifier.errors import ModelError
from gender_classifier.model.network import build_model

FORMAT = "gender-classifier/1"
"""What our model files call themselves; another number would be another layout of the file."""


@dataclass(frozen=True)
class ModelSpec:
    """Everything besides its weights that rebuilds a model and prepares its input.

    ``architecture`` is a name in ``model.network.NETWORKS``, ``head`` one of its heads.

    ``channel_mean`` and ``channel_std`` normalise the input, RGB, on the scale 0 to 1. ``tta_margin`` is
    :func:`infer`'s. Probabilities are the softmax of the logits over ``temperature``, which is fitted on val.
    """

    head: str
    classes: tuple[str, ...]
    image_size: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    tta_margin: float = 0.0
    temperature: float = 1.0
    architecture: str = "alexnet"


def save_model(path: Path, state: Mapping[str, Tensor], spec: ModelSpec) -> None:
    """Write weights and ``spec`` into one safetensors file."""
    write_bytes(path, pack_model(state, spec))


def pack_model(state: Mapping[str, Tensor], spec: ModelSpec) -> bytes:
    """Return weights and ``spec`` in the safetensors format; equal content gives equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(state.items())}
    # One key: safetensors promises no order among several.
    metadata = {"gender_classifier": json.dumps({"format": FORMAT, **asdict(spec)}, sort_keys=True)}
    return save(tensors, metadata)


def load_model(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Rebuild a model from its file alone, in evaluation mode on the CPU. Nothing is unpickled.

    Raises:
        ModelError: the file is missing, damaged, or not written by :func:`save_model`.
    """
    state, metadata = read_safetensors(path)
    spec = _parse_spec(path, metadata)
    model = build_model(spec.head, len(spec.classes), spec.image_size, spec.architecture)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: its tensors do not fit its own description ({reason}); train it anew") from None
    return model.eval(), spec


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; run `dvc repro` to make it, or mend the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}); restore it, or make it anew") from None


def _parse_spec(path: Path, metadata: Mapping[str, str]) -> ModelSpec:
    try:
        raw: dict[str, Any] = json.loads(metadata["gender_classifier"])
        found = raw.pop("format")
        if found != FORMAT:
            raise ModelError(f"{path}: has format {found!r}, this version reads {FORMAT!r}; train it anew")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return ModelSpec(**values)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ModelError(
            f"{path}: has no description of a model by this project; give models/model.safetensors"
        ) from None
