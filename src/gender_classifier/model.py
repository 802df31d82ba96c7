"""AlexNet from torchvision: its heads, its weights, and its file.

AlexNet is Krizhevsky's "One weird trick for parallelizing convolutional neural networks" (2014), as torchvision
builds it. At 64x64 px its ``features`` end in one 1x1x256 vector an image.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet

from gender_classifier.errors import ModelError
from gender_classifier.files import write_bytes
from gender_classifier.model_file import check_classes, check_image_size, check_metadata
from gender_classifier.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision's weights were trained with, RGB, 0 to 1."""

FORMAT = "gender-classifier/1"
"""What our model files call themselves; another number would be another layout of the file."""


@dataclass(frozen=True)
class ModelSpec:
    """What rebuilds a model besides its weights, and how its input is made.

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


class LinearHeadAlexNet(nn.Module):
    """torchvision's ``features``, flattened, and one linear layer: 2,470,210 parameters for 64 px and 2 classes."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        """Initialise every layer as torch does by default, from torch's global generator."""
        super().__init__()
        self.features = _build_features()
        self.classifier = nn.Linear(_count_features(image_size), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised float (N, 3, S, S) to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def build_model(head: str, num_classes: int, image_size: int) -> nn.Module:
    """Build an untrained network that maps normalised float (N, 3, S, S) to logits (N, num_classes).

    Args:
        head: ``linear`` for :class:`LinearHeadAlexNet`, ``full`` for ``torchvision.models.alexnet``.
        num_classes: width of the last layer.
        image_size: S, px; at least 63.

    Raises:
        ModelError: an unknown head, or images too small for the network.
    """
    if image_size < 63:
        raise ModelError(f"image size {image_size} px is too small for AlexNet's pooling; use at least 63")
    if head == "linear":
        return LinearHeadAlexNet(num_classes, image_size)
    if head == "full":
        model: nn.Module = alexnet(num_classes=num_classes)
        return model
    raise ModelError(f"unknown head {head!r}; choose linear or full")


def normalize(images: Tensor, spec: ModelSpec) -> Tensor:
    """Turn uint8 (N, S, S, 3) into the float32 (N, 3, S, S) that the network takes."""
    return standardize(to_unit(images), spec)


def to_unit(images: Tensor, memory_format: torch.memory_format = torch.channels_last) -> Tensor:
    """Turn uint8 (N, S, S, 3) into float32 (N, 3, S, S) in [0, 1]; channels-last in memory, unless told otherwise."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=memory_format).mul_(1 / 255)


def standardize(images: Tensor, spec: ModelSpec) -> Tensor:
    """Subtract the training set's channel means and divide by its deviations, in place; float (N, 3, S, S)."""
    mean = images.new_tensor(spec.channel_mean).view(1, 3, 1, 1)
    std = images.new_tensor(spec.channel_std).view(1, 3, 1, 1)
    return images.sub_(mean).div_(std)


def infer(model: nn.Module, images: Tensor, tta_margin: float) -> Tensor:
    """Run the network, with a second look, at the mirror image, where it is in doubt.

    An image whose two highest logits differ by less than ``tta_margin`` gets a weighted mean of both passes. The second
    one weighs a half up to half the margin, then less and less, so that no image changes by a jump. It is test-time
    augmentation by a flip (Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012,
    section 4.1), kept to the few images whose class it is likely to change.

    Args:
        model: a network of :func:`build_model` in evaluation mode.
        images: normalised float (N, 3, S, S).
        tta_margin: logits; 0 for one pass.

    Returns:
        float32 (N, num_classes).
    """
    logits: Tensor = model(images).float()
    if not tta_margin:
        return logits
    highest = logits.topk(2, dim=1).values
    share = (1 - (highest[:, 0] - highest[:, 1]) / tta_margin).clamp(max=0.5)
    rows = torch.nonzero(share > 0).squeeze(1)
    mirrored = model(images.index_select(0, rows).flip(3)).float()
    change = (mirrored - logits.index_select(0, rows)) * share.index_select(0, rows).unsqueeze(1)
    return logits.index_add_(0, rows, change)


@torch.no_grad()
def compute_logits(
    model: nn.Module,
    spec: ModelSpec,
    images: NDArray[np.uint8] | Tensor,
    *,
    batch_size: int = 512,
    on_batch: Callable[[int], object] = lambda _: None,
) -> NDArray[np.float32]:
    """Run the model in evaluation mode, in fp32, on whichever device it lies.

    Args:
        model: a network of :func:`build_model`.
        spec: how its input is normalised, and when it looks twice.
        images: uint8 (N, S, S, 3); an array may be memory-mapped, a batch is read at a time.
        batch_size: images a pass; it does not change the figures beyond rounding.
        on_batch: told the number of images after each batch.

    Returns:
        float32 (N, num_classes).
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, max(len(images), 1), batch_size):
        part = images[start : start + batch_size]
        batch = (part if isinstance(part, Tensor) else torch.tensor(part)).to(device)
        parts.append(infer(model, normalize(batch, spec), spec.tta_margin))
        on_batch(len(batch))
    model.train(was_training)
    logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return logits


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def find_last_layer(model: nn.Module) -> str:
    """Return the name of the layer that gives the logits."""
    names: list[str] = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1]


def load_initial_weights(model: nn.Module, weights: str, base_dir: Path) -> None:
    """Put ``weights`` into a new model, all but the head's last layer, which stays as it was made.

    Args:
        model: a network of :func:`build_model`; changed in place.
        weights: ``none``; ``imagenet`` for torchvision's ``AlexNet_Weights.IMAGENET1K_V1`` out of torch hub's
            cache or from the network; or the path of a ``.safetensors`` file with torchvision's tensor names.
        base_dir: what a relative path is relative to.

    Raises:
        ModelError: the weights cannot be had, or do not fit.
    """
    if weights == "none":
        return
    state = _load_imagenet() if weights == "imagenet" else _load_tensors(base_dir / Path(weights).expanduser())
    last = find_last_layer(model)
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{last}.")}
    for name, value in wanted.items():
        if name not in state:
            raise ModelError(
                f"weights {weights}: tensor `{name}` is missing; give AlexNet's, named as torchvision does"
            )
        if state[name].shape != value.shape:
            found, fits = tuple(state[name].shape), tuple(value.shape)
            raise ModelError(f"weights {weights}: tensor `{name}` has shape {found}, the model needs {fits}")
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)


def save_model(path: Path, state: Mapping[str, Tensor], spec: ModelSpec) -> None:
    """Write weights and ``spec`` into one safetensors file; equal content gives equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(state.items())}
    # One key: safetensors promises no order among several.
    metadata = {"gender_classifier": json.dumps({"format": FORMAT, **asdict(spec)}, sort_keys=True)}
    write_bytes(path, save(tensors, metadata))


def load_model(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Rebuild a model from its file alone, in evaluation mode on the CPU. Nothing is unpickled.

    Raises:
        ModelError: the file is missing, damaged, not written by :func:`save_model`, or says what cannot be.
    """
    state, metadata = _read_safetensors(path)
    spec = _parse_spec(path, metadata)
    model = build_model(spec.head, len(spec.classes), spec.image_size)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise ModelError(f"{path}: its tensors do not fit its own description ({reason}); train it anew") from None
    for name, value in state.items():
        if value.dtype != torch.float32 or not value.isfinite().all():
            what = f"is of {value.dtype}" if value.dtype != torch.float32 else "holds NaN or infinity"
            raise ModelError(f"{path}: its tensor `{printable(name)}` {what}; train it anew")
    return model.eval(), spec


def _build_features() -> nn.Sequential:
    with torch.device("meta"):  # building the whole AlexNet would fill 57 M parameters of a head we drop
        features: nn.Sequential = alexnet(num_classes=1).features
    features.to_empty(device="cpu")
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return features


def _count_features(image_size: int) -> int:
    with torch.device("meta"):
        features: nn.Sequential = alexnet(num_classes=1).features
        vector: Tensor = features(torch.empty(1, 3, image_size, image_size))
    return vector.numel()


def _load_imagenet() -> Mapping[str, Tensor]:
    weights = AlexNet_Weights.IMAGENET1K_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    try:
        with _socket_timeout(seconds=15):
            # weights_only: torch's restricted reader, which builds tensors and runs nothing.
            state: Mapping[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise ModelError(
            f"weights imagenet: {weights.url} cannot be fetched ({error}); download it by hand and put it at {cached}"
        ) from None
    except Exception as error:  # whatever torch's reader meets in a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"weights imagenet: {cached} is damaged ({reason}); delete it and download {weights.url} to that place"
        ) from None
    return state


def _load_tensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ModelError(
            f"weights {path}: choose none, imagenet or the path of a .safetensors file (pickled files are not read)"
        )
    return _read_safetensors(path)[0]


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; run `dvc repro` to make it, or mend the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}); restore it, or make it anew") from None


def _parse_spec(path: Path, metadata: Mapping[str, str]) -> ModelSpec:
    check_metadata(path, metadata)
    try:
        raw: dict[str, Any] = json.loads(metadata["gender_classifier"])
        found = raw.pop("format")
        if found != FORMAT:
            raise ModelError(f"{path}: has format {found!a}, this version reads {FORMAT!r}; train it anew")
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
    "architecture": lambda value: value == "alexnet",
    "channel_mean": _are_three_numbers,
    "channel_std": lambda value: _are_three_numbers(value) and min(value) > 0,
    "tta_margin": lambda value: _is_number(value) and value >= 0,
    "temperature": lambda value: _is_number(value) and value > 0,
}
"""What each field of :class:`ModelSpec` may be."""


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Keep torch hub, which sets none, from waiting for ever on a network that swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
