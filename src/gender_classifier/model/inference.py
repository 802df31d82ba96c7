"""Images to logits: normalisation, test-time augmentation, batches."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gender_classifier.model.model_file import ModelSpec

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision's weights were trained with, RGB, 0 to 1."""


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


def infer(model: nn.Module, images: Tensor, spec: ModelSpec) -> Tensor:
    """Run the network, add the bias, and take a second look, at the mirror image, where it is in doubt.

    An image whose two highest logits differ by less than ``spec.tta_margin`` gets a weighted mean of both passes. The
    second one weighs a half up to half the margin, then less and less, so that no image changes by a jump. It is
    test-time augmentation by a flip (Krizhevsky et al., "ImageNet classification with deep convolutional neural
    networks", 2012, section 4.1), kept to the few images whose class it is likely to change.

    Args:
        model: a network of :func:`build_model` in evaluation mode.
        images: normalised float (N, 3, S, S).
        spec: its ``bias`` and ``tta_margin``.

    Returns:
        float32 (N, num_classes).
    """
    logits = _run(model, images, spec)
    if not spec.tta_margin:
        return logits
    highest = logits.topk(2, dim=1).values
    share = (1 - (highest[:, 0] - highest[:, 1]) / spec.tta_margin).clamp(max=0.5)
    rows = torch.nonzero(share > 0).squeeze(1)
    mirrored = _run(model, images.index_select(0, rows).flip(3), spec)
    change = (mirrored - logits.index_select(0, rows)) * share.index_select(0, rows).unsqueeze(1)
    return logits.index_add(0, rows, change)  # in place, logits that are a view would not export


def _run(model: nn.Module, images: Tensor, spec: ModelSpec) -> Tensor:
    logits: Tensor = model(images).float()
    return logits + logits.new_tensor(spec.bias) if spec.bias else logits


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
        spec: how its input is normalised, its bias, and when it looks twice.
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
        parts.append(infer(model, normalize(batch, spec), spec))
        on_batch(len(batch))
    model.train(was_training)
    logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return logits
