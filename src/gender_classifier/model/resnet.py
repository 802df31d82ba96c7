"""Residual networks for small images: ResNet-10, and the small stem for torchvision's ResNets.

Residual networks: He et al., "Deep residual learning for image recognition" (2016). Average-pooled shortcuts and a last
BatchNorm that starts at zero: He et al., "Bag of tricks for image classification with convolutional neural networks"
(2019), section 4.2 (ResNet-D) and section 3.1.
"""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

_CHANNELS = (32, 64, 128, 256)


class ResNet10(nn.Module):
    """One basic block for each of four widths, for images of 32 to 128 px: 1,226,914 parameters for 2 classes.

    The stem is a 3×3 convolution of stride 2 without pooling, so that the last block still sees 4×4 positions of
    64×64 px.
    """

    def __init__(self, num_classes: int) -> None:
        """Initialise the convolutions after He et al. (2015), from torch's global generator."""
        super().__init__()
        self.stem = nn.Sequential(
            _build_convolution(3, _CHANNELS[0], stride=2), nn.BatchNorm2d(_CHANNELS[0]), nn.ReLU()
        )
        pairs = zip((_CHANNELS[0], *_CHANNELS), _CHANNELS, strict=False)
        self.blocks = nn.Sequential(*(_build_block(*pair) for pair in pairs))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_CHANNELS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)  # each block starts as its shortcut

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised float (N, 3, S, S) to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.pool(self.blocks(self.stem(images))).flatten(1))
        return logits


def use_small_stem(model: ResNet) -> None:
    """Replace the 7×7 stem and its pooling, in place, by a 3×3 convolution of stride 2: for images below 128 px."""
    channels = model.conv1.out_channels
    model.conv1 = _build_convolution(3, channels, stride=2)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _build_block(channels: int, out_channels: int) -> BasicBlock:
    if channels == out_channels:
        return BasicBlock(channels, channels)
    shortcut = nn.Sequential(
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Conv2d(channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )
    return BasicBlock(channels, out_channels, stride=2, downsample=shortcut)


def _build_convolution(channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
