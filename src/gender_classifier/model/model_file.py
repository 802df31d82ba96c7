"""The model file: weights and what rebuilds the network, in one safetensors file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gender_classifier.common.files import write_bytes
from gender_classifier.common.terminal import printable
from gender_classifier.errors import ModelError
from gender_classifier.model.metadata import check_classes, check_image_size, check_metadata
from gender_classifier.model.network import build_model, check_choice, find_network

FORMAT = "gender-classifier/1"
"""What our model files call themselves; another number would be another layout of the file."""

_UNFAMILIARITY = "unfamiliarity."
"""Prefix of the tensors in a model file that are no weights of the network."""


@dataclass(frozen=True)
class ModelSpec:
    """Everything besides its weights that rebuilds a model and prepares its input.

    ``architecture`` is a name for ``model.network.find_network``, with ``head`` and ``stem`` among those of its entry.

    ``channel_mean`` and ``channel_std`` normalise the input, RGB, on the scale 0 to 1. ``tta_margin`` is
    :func:`infer`'s, and so is ``bias``, added to the logits of each class; it is empty for none. Probabilities are the
    softmax of the logits over ``temperature``, which is fitted on val, as the bias is on val and corrupted val images.
    """

    head: str
    classes: tuple[str, ...]
    image_size: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    tta_margin: float = 0.0
    temperature: float = 1.0
    architecture: str = "alexnet"
    stem: str = "original"
    bias: tuple[float, ...] = ()


def describe_network(spec: ModelSpec) -> str:
    """Return what people call the network, with what ``spec`` changes of it: ``AlexNet (full head)``, ``ResNet-10``."""
    changes = [f"{spec.head} head"] * (spec.head != "linear") + [f"{spec.stem} stem"] * (spec.stem != "original")
    return find_network(spec.architecture).title + (f" ({', '.join(changes)})" if changes else "")


def build_network(spec: ModelSpec) -> nn.Module:
    """Build the untrained network of ``spec``."""
    return build_model(spec.head, len(spec.classes), spec.image_size, spec.architecture, spec.stem)


def save_model(
    path: Path, state: Mapping[str, Tensor], spec: ModelSpec, unfamiliarity: Mapping[str, Tensor] | None = None
) -> None:
    """Write what :func:`pack_model` returns into one safetensors file."""
    write_bytes(path, pack_model(state, spec, unfamiliarity))


def pack_model(
    state: Mapping[str, Tensor], spec: ModelSpec, unfamiliarity: Mapping[str, Tensor] | None = None
) -> bytes:
    """Return a model in the safetensors format; equal content gives equal bytes.

    Args:
        state: weights.
        spec: description.
        unfamiliarity: state of an ``Unfamiliarity``; its names get a prefix.
    """
    every = {**state, **{_UNFAMILIARITY + name: value for name, value in (unfamiliarity or {}).items()}}
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(every.items())}
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
    state = {name: value for name, value in state.items() if not name.startswith(_UNFAMILIARITY)}
    model = build_network(spec)
    kinds = {name: value.dtype for name, value in model.state_dict().items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise ModelError(f"{path}: its tensors do not fit its own description ({reason}); train it again") from None
    for name, value in state.items():
        if value.dtype != kinds[name] or not value.isfinite().all():
            what = f"is of {value.dtype}" if value.dtype != kinds[name] else "holds NaN or infinity"
            raise ModelError(f"{path}: its tensor `{printable(name)}` {what}; train it again")
    return model.eval(), spec


def read_unfamiliarity(path: Path) -> dict[str, Tensor]:
    """Return the tensors that :func:`pack_model` got as ``unfamiliarity``; none from a file without them.

    Raises:
        ModelError: the file is missing or damaged.
    """
    state, _ = read_safetensors(path)
    return {
        name.removeprefix(_UNFAMILIARITY): value for name, value in state.items() if name.startswith(_UNFAMILIARITY)
    }


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; run `dvc repro` to make it, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}); restore it, or make it again") from None


def find_spec(path: Path, metadata: Mapping[str, str]) -> ModelSpec | None:
    """Return the description in a file's metadata; None in a file that this project has not written.

    Raises:
        ModelError: the description is damaged, or of another format.
    """
    return _parse_spec(path, metadata) if "gender_classifier" in metadata else None


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
    check_image_size(path, spec.image_size)
    for key, is_sound in _SOUND.items():
        if not is_sound(getattr(spec, key)):
            value = ascii(getattr(spec, key))[:80]
            raise ModelError(f"{path}: its description has {key} {value}; give a model that `dvc repro` made")
    if spec.bias and len(spec.bias) != len(spec.classes):
        reason = f"its description has a bias of {len(spec.bias)} numbers for {len(spec.classes)} classes"
        raise ModelError(f"{path}: {reason}; give a model that `dvc repro` made")
    try:
        check_choice(spec.architecture, head=spec.head, stem=spec.stem, image_size=spec.image_size)
    except ModelError as error:
        reason = f"its architecture, head or stem is refused ({error})"
        raise ModelError(f"{path}: {reason}; give a model that `dvc repro` made") from None
    return spec


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6  # NaN is not


def _are_three_numbers(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))


_SOUND: Mapping[str, Callable[[Any], bool]] = {
    "head": lambda value: isinstance(value, str),
    "architecture": lambda value: isinstance(value, str),
    "stem": lambda value: isinstance(value, str),
    "channel_mean": _are_three_numbers,
    "channel_std": lambda value: _are_three_numbers(value) and min(value) > 0,
    "tta_margin": lambda value: _is_number(value) and value >= 0,
    "temperature": lambda value: _is_number(value) and value > 0,
    "bias": lambda value: isinstance(value, tuple) and all(map(_is_number, value)),
}
"""What each field of :class:`ModelSpec` may be."""
