"""The table of networks: AlexNet as torchvision builds it, with a choice of heads.

AlexNet is Krizhevsky's "One weird trick for parallelizing convolutional neural networks" (2014). At 64x64 px its
``features`` end in one 1x1x256 vector an image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, WeightsEnum, alexnet

from gender_classifier.errors import ModelError


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


@dataclass(frozen=True)
class Network:
    """One entry of :data:`NETWORKS`: how people call it, how it is built, torchvision's weights for it."""

    title: str
    build: Callable[[str, int, int], nn.Module]
    weights: WeightsEnum


def _build_alexnet(head: str, num_classes: int, image_size: int) -> nn.Module:
    if image_size < 63:
        raise ModelError(f"image size {image_size} px is too small for AlexNet's pooling; use at least 63")
    if head == "linear":
        return LinearHeadAlexNet(num_classes, image_size)
    if head == "full":
        model: nn.Module = alexnet(num_classes=num_classes)
        return model
    raise ModelError(f"unknown head {head!r}; choose linear or full")


NETWORKS = {"alexnet": Network("AlexNet", _build_alexnet, AlexNet_Weights.IMAGENET1K_V1)}
"""Every network by the name that a model file stores as its ``architecture``."""


def build_model(head: str, num_classes: int, image_size: int, architecture: str = "alexnet") -> nn.Module:
    """Build an untrained network that maps normalised float (N, 3, S, S) to logits (N, num_classes).

    Args:
        head: ``linear`` for :class:`LinearHeadAlexNet`, ``full`` for ``torchvision.models.alexnet``.
        num_classes: width of the last layer.
        image_size: S, px; AlexNet needs at least 63.
        architecture: a name in :data:`NETWORKS`.

    Raises:
        ModelError: an unknown network or head, or images too small for the network.
    """
    return find_network(architecture).build(head, num_classes, image_size)


def find_network(architecture: str) -> Network:
    """Return an entry of :data:`NETWORKS`.

    Raises:
        ModelError: there is none of that name.
    """
    try:
        return NETWORKS[architecture]
    except KeyError:
        raise ModelError(f"unknown network {architecture!r}; choose one of {', '.join(NETWORKS)}") from None


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def find_last_layer(model: nn.Module) -> str:
    """Return the name of the layer that gives the logits."""
    names: list[str] = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1]


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
