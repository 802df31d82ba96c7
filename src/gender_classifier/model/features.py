"""Features of images: what layers of a network are given, averaged over positions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gender_classifier.model.inference import normalize
from gender_classifier.model.model_file import ModelSpec

_WEIGHTED = (nn.Conv2d, nn.Linear)


def find_feature_layers(model: nn.Module, image_size: int) -> tuple[str, str]:
    """Return the names of the second and of the last layer with weights, in the order in which the network runs them.

    The second is given the responses to the first layer's filters, edges and colours; the last is given the
    penultimate features. What they are given stays the same if BatchNorm is folded into the layer before it.

    Args:
        model: a network of ``build_model``.
        image_size: px a side.
    """
    called: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, __, name=name: called.append(name))
        for name, layer in model.named_modules()
        if isinstance(layer, _WEIGHTED)
    ]
    was_training, device = model.training, next(model.parameters()).device
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return called[1], called[-1]


@contextmanager
def collect_features(model: nn.Module, layers: Sequence[str]) -> Iterator[list[list[Tensor]]]:
    """Collect features while the network runs.

    Args:
        model: the network, or what is left of it after BatchNorm is folded.
        layers: names of layers with weights.

    Yields:
        For each layer, float (N, D) of each pass, in the order of the passes.
    """
    found: list[list[Tensor]] = [[] for _ in layers]
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda layer, inputs, features=features: features.append(_average_positions(layer, inputs[0]))
        )
        for name, features in zip(layers, found, strict=True)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def compute_features(
    model: nn.Module,
    spec: ModelSpec,
    images: NDArray[np.uint8],
    layers: Sequence[str],
    *,
    batch_size: int = 512,
    on_batch: Callable[[int], object] = lambda _: None,
) -> list[Tensor]:
    """Run the network in evaluation mode, in fp32, once on each image as it is.

    Args:
        model: a network of ``build_model``, on any device.
        spec: how its input is normalised.
        images: uint8 (N, S, S, 3), N at least 1.
        layers: names of layers with weights.
        batch_size: images a pass.
        on_batch: told the number of images after each batch.

    Returns:
        For each layer, float32 (N, D) on the CPU.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with collect_features(model, layers) as found:
        for start in range(0, len(images), batch_size):
            batch = torch.tensor(images[start : start + batch_size])
            model(normalize(batch.to(device), spec))
            on_batch(len(batch))
    model.train(was_training)
    return [torch.cat(features).cpu() for features in found]


def _average_positions(layer: nn.Module, given: Tensor) -> Tensor:
    """Return float (N, D): a convolution is given (N, D, H, W), a linear layer (N, ..., D)."""
    if isinstance(layer, nn.Conv2d):
        return given.mean((2, 3))
    return given if given.dim() == 2 else given.flatten(1, -2).mean(1)
