"""The model file: weights and what rebuilds the network, in one safetensors file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gender_classifier.common.files import write_bytes
from gender_classifier.common.terminal import printable
from gender_classifier.errors import ModelError
from gender_classifier.model.metadata import check_classes, check_image_size, check_metadata
from gender_classifier.model.network import NETWORKS, build_model

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
        ModelError: the file is missing, damaged, or not written by :func:`save_model`, or says what cannot be.
    """
    state, metadata = read_safetensors(path)
    spec = _parse_spec(path, metadata)
    model = build_model(spec.head, len(spec.classes), spec.image_size, spec.architecture)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise ModelError(f"{path}: its tensors do not fit its own description ({reason}); train it again") from None
    for name, value in state.items():
        if value.dtype != torch.float32 or not value.isfinite().all():
            what = f"is of {value.dtype}" if value.dtype != torch.float32 else "holds NaN or infinity"
            raise ModelError(f"{path}: its tensor `{printable(name)}` {what}; train it again")
    return model.eval(), spec


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; run `dvc repro` to make it, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}); restore it, or make it again") from None


def _parse_spec(path: Path, metadata: Mapping[str, str]) -> ModelSpec:
    check_metadata(path, metadata)
    try:
        raw: dict[str, Any] = json.loads(metadata["gender_classifier"])
        found = raw.pop("format")
        if found != FORMAT:
            raise ModelError(f"{path}: has format {found!a}, this version reads {FORMAT!r}; train it again")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        spec = ModelSpec(**values)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ModelError(
            f"{path}: has no description of a model by this project; give models/model.safetensors"
        ) from None
    check_classes(path, spec.classes)
    check_image_size(path, spec.image_size, least=63)
    for key, is_sound in _SOUND.items():
        if not is_sound(getattr(spec, key)):
            value = ascii(getattr(spec, key))[:80]
            raise ModelError(f"{path}: its description has {key} {value}; give a model that `dvc repro` made")
    return spec


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6  # NaN is not


def _are_three_numbers(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))


_SOUND: Mapping[str, Callable[[Any], bool]] = {
    "head": lambda value: value in ("linear", "full"),
    "architecture": lambda value: value in NETWORKS,
    "channel_mean": _are_three_numbers,
    "channel_std": lambda value: _are_three_numbers(value) and min(value) > 0,
    "tta_margin": lambda value: _is_number(value) and value >= 0,
    "temperature": lambda value: _is_number(value) and value > 0,
}
"""What each field of :class:`ModelSpec` may be."""
