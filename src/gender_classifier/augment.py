"""Random variations of a whole batch at once: drawn from one generator, then applied to a batch tensor."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

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


class Variations(NamedTuple):
    """What happens to each of N images, on the CPU; chance ends here, so that parts of a batch can be varied apart."""

    flip: Tensor
    """bool (N,): mirrored left and right."""
    angle: Tensor
    """float (N,): rotation, radians."""
    scale: Tensor
    """float (N,): size of the face against what it was."""
    shift: Tensor
    """float (N, 2): across and down, fractions of a side."""
    gain: Tensor
    """float (N,): factor about zero."""
    spread: Tensor
    """float (N,): factor about the image's mean."""
    grey: Tensor
    """bool (N,): without colour."""
    blur: Tensor
    """float (N,): width of a Gaussian, px; 0 for none."""
    jpeg: Tensor
    """float (N,): quality of a compression; 0 for none."""

    def part(self, rows: slice) -> Variations:
        """Return those of some of the images."""
        return Variations(*(column[rows] for column in self))


def draw_variations(count: int, params: AugmentParams, generator: torch.Generator) -> Variations:
    """Draw what happens to each of ``count`` images.

    Args:
        count: images.
        params: how far.
        generator: a CPU generator; the only source of chance here.
    """

    def within(width: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * width

    def happens(probability: float) -> Tensor:
        return torch.rand(count, generator=generator) < probability

    def between(limits: tuple[float, float]) -> Tensor:
        return limits[0] + (limits[1] - limits[0]) * torch.rand(count, generator=generator)

    return Variations(
        flip=happens(params.flip),
        angle=within(params.rotate) * (math.pi / 180),
        scale=1 + within(params.scale),
        shift=within(params.translate, 2),
        gain=1 + within(params.brightness),
        spread=1 + within(params.contrast),
        grey=happens(params.grey),
        blur=happens(params.blur) * between(_BLUR_SIGMA),
        jpeg=happens(params.jpeg) * between(_JPEG_QUALITY),
    )


def apply_variations(images: Tensor, variations: Variations) -> Tensor:
    """Vary each image as drawn: geometry first, then light, colour, sharpness, compression.

    Args:
        images: float (N, 3, H, W) in [0, 1], before normalisation, on any device.
        variations: of these N images.

    Returns:
        float (N, 3, H, W); values may leave [0, 1] by the brightness and contrast.
    """
    images = _relight(_resample(images, variations), variations)
    # A copy by now: what changes a few images alone changes them in place.
    for change in (_lose_colour, _blur, _compress):
        change(images, variations)
    return images


def _resample(images: Tensor, variations: Variations) -> Tensor:
    """Flip, rotate, scale and shift in one resampling, bilinear; what lies outside is the border repeated."""
    flip, angle, scale, shift = variations.flip, variations.angle, variations.scale, variations.shift
    if not (flip.any() or angle.any() or shift.any() or (scale != 1).any()):
        return images
    mirror = torch.where(flip, -1.0, 1.0)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack(
        [torch.stack([mirror * cosine, -sine], dim=1), torch.stack([mirror * sine, cosine], dim=1)], dim=1
    )
    # grid_sample's coordinates span 2 over a side, so a fraction of a side counts twice.
    theta = torch.cat([rows, 2 * shift[:, :, None]], dim=2).to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _relight(images: Tensor, variations: Variations) -> Tensor:
    gain, spread = (one.to(images.device).view(-1, 1, 1, 1) for one in (variations.gain, variations.spread))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.addcmul(mean * (gain * (1 - spread)), images, gain * spread)


def _lose_colour(images: Tensor, variations: Variations) -> None:
    chosen = torch.nonzero(variations.grey)[:, 0].to(images.device)
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    luma = (images[chosen] * weights).sum(dim=1, keepdim=True)
    images.index_copy_(0, chosen, luma.expand(-1, 3, -1, -1))


def _blur(images: Tensor, variations: Variations) -> None:
    """Convolve with a Gaussian; at the border it weighs only what is inside."""
    chosen = torch.nonzero(variations.blur)[:, 0]
    sigma = variations.blur[chosen].to(images.device)
    subset = images[chosen].contiguous()  # planes: the products below walk them row by row
    rows, columns = (_blur_matrices(side, sigma) for side in images.shape[2:])
    images.index_copy_(0, chosen.to(images.device), rows @ subset @ columns.mT)


def _compress(images: Tensor, variations: Variations) -> None:
    """Lose what a JPEG loses in 8x8 blocks; colour keeps its resolution.

    The transform and the tables are those of ITU-T T.81; entropy coding, which loses nothing, is left out.
    """
    chosen = torch.nonzero(variations.jpeg)[:, 0]
    quality = variations.jpeg[chosen].to(images.device)
    height, width = images.shape[2:]
    subset = F.pad(images[chosen], (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    transform, tables, colours, back = (one.to(images) for one in _jpeg_constants())
    planes = torch.einsum("ij,njhw->nihw", colours, subset.clamp(0, 1) * 255)
    planes[:, 0] -= 128
    high, wide = planes.shape[2] // _BLOCK, planes.shape[3] // _BLOCK
    blocks = planes.reshape(-1, 3, high, _BLOCK, wide, _BLOCK).transpose(3, 4)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1, 1) / 100
    steps = (tables * scale).clamp(1, 255)[:, :, None, None]
    coefficients = (transform @ blocks @ transform.mT / steps).round() * steps
    planes = (transform.mT @ coefficients @ transform).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    planes[:, 0] += 128
    subset = torch.einsum("ij,njhw->nihw", back, planes) / 255
    images.index_copy_(0, chosen.to(images.device), subset[:, :, :height, :width].clamp(0, 1))


def _blur_matrices(side: int, sigma: Tensor) -> Tensor:
    """Return (N, 1, side, side): a row an output pixel, its weights summing to 1."""
    places = torch.arange(side, device=sigma.device, dtype=sigma.dtype)
    distance = (places[:, None] - places[None, :]).square()
    return torch.softmax(-distance / (2 * sigma.square()).view(-1, 1, 1), dim=2)[:, None]


@functools.cache
def _jpeg_constants() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the orthonormal 8x8 DCT-II, the tables (3, 8, 8), and the matrices to YCbCr and back, float64."""
    places = torch.arange(_BLOCK, dtype=torch.float64)
    transform = torch.cos(math.pi / _BLOCK * (places[None, :] + 0.5) * places[:, None]) * math.sqrt(2 / _BLOCK)
    transform[0] /= math.sqrt(2)
    tables = torch.tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], dtype=torch.float64)
    colours = torch.tensor(_TO_YCBCR, dtype=torch.float64)
    return transform, tables, colours, torch.linalg.inv(colours)
