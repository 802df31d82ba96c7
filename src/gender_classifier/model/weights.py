"""Pretrained weights: torchvision's, or those of a safetensors file."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from gender_classifier.errors import ModelError
from gender_classifier.model.model_file import read_safetensors
from gender_classifier.model.network import find_last_layer, find_network


def load_initial_weights(model: nn.Module, weights: str, base_dir: Path, architecture: str = "alexnet") -> None:
    """Put ``weights`` into a new model, all but the head's last layer, which stays as it was made.

    Args:
        model: a network of :func:`build_model`; changed in place.
        weights: ``none``; ``imagenet`` for torchvision's weights, out of torch hub's cache or from the network; or the
            path of a ``.safetensors`` file with torchvision's tensor names.
        base_dir: what a relative path is relative to.
        architecture: of ``model``, a name in ``NETWORKS``.

    Raises:
        ModelError: the weights cannot be had, or do not fit.
    """
    if weights == "none":
        return
    network = find_network(architecture)
    state = (
        _load_imagenet(network.weights)
        if weights == "imagenet"
        else _load_tensors(base_dir / Path(weights).expanduser())
    )
    last = find_last_layer(model)
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{last}.")}
    for name, value in wanted.items():
        if name not in state:
            raise ModelError(
                f"weights {weights}: tensor `{name}` is missing; give {network.title} weights with torchvision's names"
            )
        if state[name].shape != value.shape:
            found, fits = tuple(state[name].shape), tuple(value.shape)
            raise ModelError(f"weights {weights}: tensor `{name}` has shape {found}, the model needs {fits}")
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)


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


def _load_tensors(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ModelError(
            f"weights {path}: choose none, imagenet or the path of a .safetensors file (pickled files are not read)"
        )
    return read_safetensors(path)[0]


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Keep torch hub, which sets none, from waiting for ever on a network that swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
