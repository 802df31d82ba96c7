"""Random variations of a whole batch at once: batch tensor in, batch tensor out, from one generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gender_classifier.params import AugmentParams

# ITU-R BT.601 luma, what Pillow's convert("L") weighs red, green and blue with.
_LUMA = (0.299, 0.587, 0.114)


def augment(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Vary each image by its own draw.

    Args:
        images: float (N, 3, H, W) in [0, 1], before normalisation.
        params: how far.
        generator: a CPU generator; the only source of chance here.

    Returns:
        float (N, 3, H, W), geometry first, then light; values may leave [0, 1] by the brightness and contrast.
    """
    if params.flip or params.rotate or params.scale or params.translate:
        images = random_affine(images, params, generator)
    if params.brightness or params.contrast:
        images = random_light(images, params.brightness, params.contrast, generator)
    if params.grey:
        images = random_grey(images, params.grey, generator)
    return images


def random_affine(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Flip, rotate, scale and shift in one resampling, bilinear; what lies outside is the border repeated.

    Args:
        images: float (N, 3, H, W).
        params: ``flip`` a probability, ``rotate`` degrees, ``scale`` and ``translate`` fractions.
        generator: a CPU generator.
    """
    count = len(images)
    angle = _uniform(count, params.rotate, generator) * (math.pi / 180)
    scale = 1 / (1 + _uniform(count, params.scale, generator))
    mirror = torch.where(torch.rand(count, generator=generator) < params.flip, -1.0, 1.0)
    # grid_sample's coordinates span 2 over a side, so a fraction of a side counts twice.
    shift = 2 * torch.stack([_uniform(count, params.translate, generator) for _ in range(2)], dim=1)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack(
        [torch.stack([mirror * cosine, -sine], dim=1), torch.stack([mirror * sine, cosine], dim=1)], dim=1
    )
    theta = torch.cat([rows, shift[:, :, None]], dim=2).to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def random_light(images: Tensor, brightness: float, contrast: float, generator: torch.Generator) -> Tensor:
    """Scale each image about zero (brightness) and about its own mean (contrast).

    Args:
        images: float (N, 3, H, W) in [0, 1].
        brightness: the factor is drawn from 1 +- this.
        contrast: likewise.
        generator: a CPU generator.
    """
    count = len(images)
    gain = (1 + _uniform(count, brightness, generator)).to(images.device).view(-1, 1, 1, 1)
    spread = (1 + _uniform(count, contrast, generator)).to(images.device).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return images * (gain * spread) + mean * (gain * (1 - spread))


def random_grey(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Replace all three channels by the luma, each image with the given probability."""
    chosen = (torch.rand(len(images), generator=generator) < probability).to(images.device).view(-1, 1, 1, 1)
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    return torch.where(chosen, (images * weights).sum(dim=1, keepdim=True), images)


def _uniform(count: int, width: float, generator: torch.Generator) -> Tensor:
    """Return float (count,) drawn from [-width, width)."""
    return (torch.rand(count, generator=generator) * 2 - 1) * width
