"""Initial weights: torchvision's for ImageNet, or those of a safetensors file."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from gender_classifier.common.files import hash_file
from gender_classifier.common.paths import locate_pretrained
from gender_classifier.errors import ModelError
from gender_classifier.model.model_file import ModelSpec, find_spec, read_safetensors
from gender_classifier.model.network import find_last_layer, find_network

_Numbers = tuple[float, ...]


@dataclass(frozen=True)
class InitialWeights:
    """What a network starts from.

    Attributes:
        state: tensors by name; empty for a start from scratch.
        origin: for messages.
        digest: SHA-256 of the file; empty where ``origin`` says it all.
        normalization: means and standard deviations of the channels, RGB, that the weights were trained with; None
            where the training set's apply.
        spec: of a model file of this project.
    """

    state: Mapping[str, Tensor]
    origin: str
    digest: str = ""
    normalization: tuple[_Numbers, _Numbers] | None = None
    spec: ModelSpec | None = None


def load_weights(weights: str, base_dir: Path, architecture: str) -> InitialWeights:
    """Read the tensors that ``train.weights`` names.

    Args:
        weights: ``none``; ``imagenet`` for torchvision's weights, out of torch hub's cache or from the network;
            ``pretrained`` for the model that this package ships; or the path of a ``.safetensors`` file: a model of
            this project, or tensors with torchvision's names, which are taken to expect ImageNet's normalisation only
            by ``imagenet``.
        base_dir: what a relative path is relative to.
        architecture: the network that they are for.

    Raises:
        ModelError: the weights cannot be had, or are another network's.
    """
    if weights == "none":
        return InitialWeights({}, weights)
    if weights == "imagenet":
        found = find_network(architecture).weights
        if found is None:
            raise ModelError(f"{architecture} has no ImageNet weights; set `train.weights` to none or a file")
        normalization = _read_normalization(architecture, found)
        return InitialWeights(_load_imagenet(found), weights, normalization=normalization)
    path = locate_pretrained("model.safetensors") if weights == "pretrained" else base_dir / Path(weights).expanduser()
    if path.suffix != ".safetensors":
        raise ModelError(
            f"weights {path}: choose none, imagenet, pretrained or the path of a .safetensors file (pickled files are "
            "not read)"
        )
    state, metadata = read_safetensors(path)
    digest = hash_file(path)
    spec = find_spec(path, metadata)
    if spec is None:
        return InitialWeights(state, weights, digest)
    if spec.architecture != architecture:
        raise ModelError(
            f"weights {weights}: they are of {spec.architecture}, and `train.network` is {architecture}; set it to "
            f"{spec.architecture}"
        )
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return InitialWeights(state, weights, digest, (spec.channel_mean, spec.channel_std), spec)


def apply_weights(model: nn.Module, initial: InitialWeights, spec: ModelSpec) -> None:
    """Put ``initial`` into a new model.

    The last layer stays as it was made, unless ``initial`` is a model of the same classes whose last layer fits.

    Args:
        model: a network of :func:`build_model`; changed in place.
        initial: from :func:`load_weights`.
        spec: of ``model``.

    Raises:
        ModelError: a tensor is missing, or does not fit.
    """
    if not initial.state:
        return
    last = f"{find_last_layer(model)}."
    state = model.state_dict()
    knows_classes = initial.spec is not None and initial.spec.classes == spec.classes
    head = {name for name in state if name.startswith(last)}
    fits = all(name in initial.state and initial.state[name].shape == state[name].shape for name in head)
    wanted = state if knows_classes and fits else {name: state[name] for name in state if name not in head}
    for name, value in wanted.items():
        if name not in initial.state:
            title = find_network(spec.architecture).title
            raise ModelError(
                f"weights {initial.origin}: tensor `{name}` is missing; give {title} weights with torchvision's names"
            )
        if initial.state[name].shape != value.shape:
            found, needed = tuple(initial.state[name].shape), tuple(value.shape)
            raise ModelError(f"weights {initial.origin}: tensor `{name}` has shape {found}, the model needs {needed}")
    model.load_state_dict({name: initial.state[name] for name in wanted}, strict=False)


def _read_normalization(architecture: str, weights: WeightsEnum) -> tuple[_Numbers, _Numbers]:
    if architecture in ("googlenet", "inception_v3"):
        # Ported from TensorFlow; with these weights torchvision's builder rescales its input to this (transform_input).
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    transforms = weights.transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def _load_imagenet(weights: WeightsEnum) -> Mapping[str, Tensor]:
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


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout for torch hub, which sets none and would wait for ever on a network that drops packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
