"""Random variations of a whole batch at once: drawn from one generator, then applied to a batch tensor."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gender_classifier.train.params import AugmentParams

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
    """float (N, 2): across and down, fractions of the width and of the height."""
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
    stretch: Tensor
    """float (N,): width over height against what it was."""
    erased: Tensor
    """float (N, 4): left, top, right and bottom of a rectangle without content, fractions of a side; 0 for none."""

    def part(self, rows: slice) -> "Variations":
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
        shift=within(1.0, 2) * torch.tensor([params.translate, params.translate_height]),
        gain=1 + within(params.brightness),
        spread=1 + within(params.contrast),
        grey=happens(params.grey),
        blur=happens(params.blur) * between(_BLUR_SIGMA),
        jpeg=happens(params.jpeg) * between(_JPEG_QUALITY),
        # Zero draws nothing, so that what is drawn for the rest does not depend on it.
        stretch=1 + within(params.stretch) if params.stretch else torch.ones(count),
        erased=_draw_rectangles(happens(params.erase), generator) if params.erase else torch.zeros(count, 4),
    )


def _draw_rectangles(chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Return (N, 4): rectangles of 2 to 20 % of the area, up to three times as wide as high or as high as wide."""
    area, shape, left, top = torch.rand(4, len(chosen), generator=generator)
    aspect = 3 ** (2 * shape - 1)
    sides = ((0.02 + 0.18 * area) * torch.stack([aspect, 1 / aspect])).sqrt()
    corner = torch.stack([left, top]) * (1 - sides)
    return torch.cat([corner, corner + sides]).T * chosen[:, None]


def apply_variations(images: Tensor, variations: Variations) -> Tensor:
    """Vary each image as drawn: geometry first, then light, colour, sharpness, compression.

    Args:
        images: float (N, 3, H, W) in [0, 1], before normalisation, on any device; planes in memory are quicker than
            channels-last.
        variations: of these N images.

    Returns:
        float (N, 3, H, W); values may leave [0, 1] by the brightness and contrast.
    """
    images = _resample(images, variations)
    for change in (_relight, _lose_colour, _blur, _compress, _erase):
        change(images, variations)  # in place: new memory for a whole batch costs as much as the change
    return images


def _resample(images: Tensor, variations: Variations) -> Tensor:
    """Flip, rotate, scale and shift in one bilinear resampling, into a copy; outside lies the border repeated."""
    flip, angle, scale, shift = variations.flip, variations.angle, variations.scale, variations.shift
    if not (flip.any() or angle.any() or shift.any() or (scale != 1).any() or (variations.stretch != 1).any()):
        return images.clone()
    mirror = torch.where(flip, -1.0, 1.0)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    across, down = variations.stretch.rsqrt(), variations.stretch.sqrt()
    rows = torch.stack(
        [
            torch.stack([mirror * cosine, -sine], dim=1) * across[:, None],
            torch.stack([mirror * sine, cosine], dim=1) * down[:, None],
        ],
        dim=1,
    )
    # grid_sample's coordinates span 2 over a side, so a fraction of a side counts twice.
    theta = torch.cat([rows, 2 * shift[:, :, None]], dim=2).to(images.device)
    return F.grid_sample(
        images, _affine_grid(theta, images.shape[2:]), mode="bilinear", padding_mode="border", align_corners=False
    )


def _affine_grid(theta: Tensor, size: Sequence[int]) -> Tensor:
    """Return (N, H, W, 2), as ``F.affine_grid`` does by N products of matrices, by two sums: four times as fast."""
    down, across = (
        torch.arange(1 - side, side, 2, device=theta.device, dtype=theta.dtype)[:, None] / side for side in size
    )
    by_column = theta[:, None, None, :, 0] * across
    by_row = theta[:, None, None, :, 1] * down[:, None] + theta[:, None, None, :, 2]
    return by_column + by_row


def _relight(images: Tensor, variations: Variations) -> None:
    gain, spread = (one.to(images.device).view(-1, 1, 1, 1) for one in (variations.gain, variations.spread))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    torch.addcmul(mean * (gain * (1 - spread)), images, gain * spread, out=images)


def _lose_colour(images: Tensor, variations: Variations) -> None:
    chosen = torch.nonzero(variations.grey)[:, 0].to(images.device)
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    luma = (images[chosen] * weights).sum(dim=1, keepdim=True)
    images.index_copy_(0, chosen, luma.expand(-1, 3, -1, -1))


def _blur(images: Tensor, variations: Variations) -> None:
    """Convolve with a Gaussian; at the border it weighs only what is inside."""
    chosen = torch.nonzero(variations.blur)[:, 0]
    sigma = variations.blur[chosen].to(images.device)
    rows, columns = (_blur_matrices(side, sigma) for side in images.shape[2:])
    images.index_copy_(0, chosen.to(images.device), rows @ images[chosen] @ columns.mT)


def _compress(images: Tensor, variations: Variations) -> None:
    """Lose what a JPEG loses in 8x8 blocks; colour keeps its resolution.

    The transform and the tables are those of ITU-T T.81; entropy coding, which loses nothing, is left out.
    """
    chosen = torch.nonzero(variations.jpeg)[:, 0]
    quality = variations.jpeg[chosen].to(images.device).view(-1, 1, 1, 1)
    height, width = images.shape[2:]
    subset = F.pad(images[chosen], (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    colours, back, rows, columns, tables = (one.to(images) for one in _jpeg_constants(*subset.shape[2:]))
    planes = _blend(colours, subset.clamp(0, 1) * 255)
    planes[:, 0] -= 128
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    steps = (tables * scale).clamp(1, 255)
    coefficients = (rows @ planes @ columns.mT / steps).round() * steps
    planes = rows.mT @ coefficients @ columns
    planes[:, 0] += 128
    subset = _blend(back, planes) / 255
    images.index_copy_(0, chosen.to(images.device), subset[:, :, :height, :width].clamp(0, 1))


def _erase(images: Tensor, variations: Variations) -> None:
    """Fill each rectangle with the image's mean colour (random erasing, Zhong et al. 2020)."""
    chosen = torch.nonzero(variations.erased[:, 2])[:, 0]
    if not len(chosen):
        return
    left, top, right, bottom = variations.erased[chosen].to(images.device).T[:, :, None]
    height, width = (_place(side, images.device) for side in images.shape[2:])
    inside = ((height >= top) & (height < bottom))[:, None, :, None] & ((width >= left) & (width < right))[
        :, None, None
    ]
    chosen = chosen.to(images.device)
    subset = images[chosen]
    images.index_copy_(0, chosen, torch.where(inside, subset.mean(dim=(2, 3), keepdim=True), subset))


def _place(side: int, device: torch.device) -> Tensor:
    """Return (1, side): the middle of each pixel, as a fraction of the side."""
    return (torch.arange(side, device=device)[None] + 0.5) / side


def _blend(colours: Tensor, planes: Tensor) -> Tensor:
    return (colours @ planes.flatten(2)).view_as(planes)


def _blur_matrices(side: int, sigma: Tensor) -> Tensor:
    """Return (N, 1, side, side): a row an output pixel, its weights summing to 1."""
    places = torch.arange(side, device=sigma.device, dtype=sigma.dtype)
    distance = (places[:, None] - places[None, :]).square()
    return torch.softmax(-distance / (2 * sigma.square()).view(-1, 1, 1), dim=2)[:, None]


@functools.cache
def _jpeg_constants(height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the matrices to YCbCr and back, the orthonormal 8x8 DCT-II along each side of a plane, and its tables.

    All float64: (3, 3) twice, (height, height), (width, width), (3, height, width).
    """
    places = torch.arange(_BLOCK, dtype=torch.float64)
    transform = torch.cos(math.pi / _BLOCK * (places[None, :] + 0.5) * places[:, None]) * math.sqrt(2 / _BLOCK)
    transform[0] /= math.sqrt(2)
    rows, columns = (torch.kron(torch.eye(side // _BLOCK), transform) for side in (height, width))
    tables = torch.tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], dtype=torch.float64)
    tables = tables.repeat(1, height // _BLOCK, width // _BLOCK)
    colours = torch.tensor(_TO_YCBCR, dtype=torch.float64)
    return colours, torch.linalg.inv(colours), rows, columns, tables
