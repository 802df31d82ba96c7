"""Random variations of a whole batch at once: batch tensor in, batch tensor out, from one generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gender_classifier.params import AugmentParams

# ITU-R BT.601 luma, what Pillow's convert("L") weighs red, green and blue with.
_LUMA = (0.299, 0.587, 0.114)

# px, at the size that the network sees.
_BLUR_SIGMA = (0.4, 1.6)

_JPEG_QUALITY = (15.0, 75.0)
_BLOCK = 8

# ITU-T T.81, Annex K: the tables for luminance and chrominance that most encoders scale by quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def augment(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Vary each image by its own draw.

    Args:
        images: float (N, 3, H, W) in [0, 1], before normalisation.
        params: how far.
        generator: a CPU generator; the only source of chance here.

    Returns:
        float (N, 3, H, W): geometry first, then light, colour, sharpness, compression; values may leave [0, 1] by
        the brightness and contrast.
    """
    if params.flip or params.rotate or params.scale or params.translate:
        images = random_affine(images, params, generator)
    if params.brightness or params.contrast:
        images = random_light(images, params.brightness, params.contrast, generator)
    if params.grey:
        images = random_grey(images, params.grey, generator)
    if params.blur:
        images = random_blur(images, params.blur, generator)
    if params.jpeg:
        images = random_jpeg(images, params.jpeg, generator)
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


def random_blur(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blur some images with a Gaussian of their own width, 0.4 to 1.6 px; the border weighs only what is inside."""
    chosen = _choose(len(images), probability, generator)
    sigma = _between(_BLUR_SIGMA, len(chosen), generator).to(images.device)
    subset = images[chosen].contiguous()  # planes: the products below walk them row by row
    rows, columns = (_blur_matrices(side, sigma) for side in images.shape[2:])
    return images.index_copy(0, chosen.to(images.device), rows @ subset @ columns.mT)


def random_jpeg(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Lose in some images what a JPEG of quality 15 to 75 loses in 8x8 blocks; colour keeps its resolution.

    The transform and the tables are those of ITU-T T.81; entropy coding, which loses nothing, is left out.
    """
    chosen = _choose(len(images), probability, generator)
    quality = _between(_JPEG_QUALITY, len(chosen), generator).to(images.device)
    height, width = images.shape[2:]
    subset = F.pad(images[chosen], (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    colours = images.new_tensor(_TO_YCBCR)
    planes = torch.einsum("ij,njhw->nihw", colours, subset.clamp(0, 1) * 255)
    planes[:, 0] -= 128
    high, wide = planes.shape[2] // _BLOCK, planes.shape[3] // _BLOCK
    blocks = planes.reshape(-1, 3, high, _BLOCK, wide, _BLOCK).transpose(3, 4)
    transform = _cosines().to(images)
    tables = images.new_tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE])
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1, 1) / 100
    steps = (tables * scale).clamp(1, 255)[:, :, None, None]
    coefficients = (transform @ blocks @ transform.mT / steps).round() * steps
    planes = (transform.mT @ coefficients @ transform).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    planes[:, 0] += 128
    subset = torch.einsum("ij,njhw->nihw", torch.linalg.inv(colours.cpu()).to(images), planes) / 255
    return images.index_copy(0, chosen.to(images.device), subset[:, :, :height, :width].clamp(0, 1))


def _blur_matrices(side: int, sigma: Tensor) -> Tensor:
    """Return (N, 1, side, side): a row an output pixel, its weights summing to 1."""
    places = torch.arange(side, device=sigma.device, dtype=sigma.dtype)
    distance = (places[:, None] - places[None, :]).square()
    return torch.softmax(-distance / (2 * sigma.square()).view(-1, 1, 1), dim=2)[:, None]


def _cosines() -> Tensor:
    """Return the orthonormal 8x8 DCT-II."""
    places = torch.arange(_BLOCK, dtype=torch.float64)
    matrix = torch.cos(math.pi / _BLOCK * (places[None, :] + 0.5) * places[:, None]) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def _choose(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Return the rows that a variation hits, int64; on the CPU, so that no device is waited for."""
    return torch.nonzero(torch.rand(count, generator=generator) < probability)[:, 0]


def _between(limits: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * torch.rand(count, generator=generator)


def _uniform(count: int, width: float, generator: torch.Generator) -> Tensor:
    """Return float (count,) drawn from [-width, width)."""
    return (torch.rand(count, generator=generator) * 2 - 1) * width
