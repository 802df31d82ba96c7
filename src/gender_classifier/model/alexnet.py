"""AlexNet as torchvision builds it, with a choice of heads.

AlexNet is Krizhevsky's "One weird trick for parallelizing convolutional neural networks" (2014). At 64×64 px its
``features`` end in one 1×1×256 vector an image.
"""

import torch
from torch import Tensor, nn
from torchvision.models import alexnet


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


def build_alexnet(head: str, num_classes: int, image_size: int) -> nn.Module:
    """Build AlexNet: head ``linear`` for :class:`LinearHeadAlexNet`, ``full`` for torchvision's own."""
    if head == "linear":
        return LinearHeadAlexNet(num_classes, image_size)
    model: nn.Module = alexnet(num_classes=num_classes)
    return model


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
