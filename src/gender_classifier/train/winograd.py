"""2D convolution in fewer multiplications, for training in float32 on small feature maps.

Toom-Cook convolution as Winograd's minimal filtering uses it (Lavin & Gray, "Fast Algorithms for Convolutional Neural
Networks", 2016): ``m`` outputs of a filter with ``r`` taps take ``m + r - 1`` multiplications along a side instead of
``m * r``. Images and weights go through small matrices, one matrix product per point does the work, and another small
matrix leads back. The backward pass is the same three steps transposed, for images and weights alike.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

# Interpolation points, in the order of how little rounding error each adds; the last is always infinity.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)

Sides = tuple[int, int]


class _Plan(NamedTuple):
    """Matrices of one convolution: P points a tile, T tiles an image, all sides as (height, width)."""

    spread: Tensor
    """(P * T, H * W): an image, with its padding, to the points of its tiles."""
    taps: Tensor
    """(P, K * L): a filter to its points."""
    collect: Tensor
    """(M, P): points to the M outputs of a tile."""
    tiles: Sides
    """Tiles down and across; their product is T."""
    tile: Sides
    """Outputs of a tile down and across; their product is M."""
    output: Sides
    """Sides of the output; the last tile of a row or column may reach beyond."""


def convolve_by_points(images: Tensor, weight: Tensor, bias: Tensor | None, padding: Sides) -> Tensor:
    """Convolve with stride 1 and zero padding, as ``F.conv2d`` does up to rounding.

    The relative error in float32 is about 2e-6 for 3x3 filters and 5e-6 for 5x5 (``F.conv2d``: 1e-6).

    Args:
        images: float (N, C, H, W), N > 0.
        weight: float (C', C, K, L), each side at most 7.
        bias: float (C',), or None.
        padding: of H and W.

    Returns:
        float (N, C', H', W'), channels-last.
    """
    output: Tensor = _Winograd.apply(images, weight, bias, padding)
    return output


class _Winograd(torch.autograd.Function):
    """See :func:`convolve_by_points`. Inside, spatial axes come first: each small matrix is then one large product."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: Sides) -> Tensor:
        count, inputs = images.shape[:2]
        outputs = len(weight)
        plan = _make_plan(tuple(weight.shape[2:]), padding, tuple(images.shape[2:]), images.dtype)
        points, area = len(plan.taps), plan.tiles[0] * plan.tiles[1]
        at_points = (plan.spread @ _to_rows(images)).view(points, area * count, inputs)
        filters = (plan.taps @ _to_rows(weight)).view(points, outputs, inputs)
        products = torch.bmm(at_points, filters.mT).view(points, area, count * outputs)
        results = torch.bmm(plan.collect.expand(area, -1, -1), products.transpose(0, 1))
        ctx.save_for_backward(at_points, filters)
        ctx.plan, ctx.shape, ctx.kernel, ctx.has_bias = plan, images.shape, weight.shape[2:], bias is not None
        # Not a view of the sum: ReLU works in place on what this returns.
        output = torch.empty(
            count, outputs, *plan.output, dtype=images.dtype, device=images.device, memory_format=torch.channels_last
        )
        torch.add(_join_tiles(results, plan, count), 0 if bias is None else bias, out=output.permute(0, 2, 3, 1))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        at_points, filters = ctx.saved_tensors
        plan, (count, inputs, *sides) = ctx.plan, ctx.shape
        points, outputs = filters.shape[:2]
        results = _cut_tiles(gradient, plan)
        products = gradient.new_empty(points, len(results), count * outputs)
        torch.bmm(plan.collect.mT.expand(len(results), -1, -1), results, out=products.transpose(0, 1))
        products = products.view(points, len(results) * count, outputs)
        by_filters = torch.bmm(products.mT, at_points).view(points, outputs * inputs)
        by_weight = _from_rows(plan.taps.mT @ by_filters, ctx.kernel, outputs, inputs)
        by_images = None
        if ctx.needs_input_grad[0]:
            by_points = torch.bmm(products, filters).view(-1, count * inputs)
            by_images = _from_rows(plan.spread.mT @ by_points, sides, count, inputs)
        return by_images, by_weight, gradient.sum(dim=(0, 2, 3)) if ctx.has_bias else None, None


def _to_rows(images: Tensor) -> Tensor:
    """Turn (N, C, H, W) into (H * W, N * C)."""
    return images.permute(2, 3, 0, 1).reshape(images.shape[2] * images.shape[3], -1)


def _from_rows(rows: Tensor, sides: Sequence[int], count: int, channels: int) -> Tensor:
    """Undo :func:`_to_rows`, into channels-last memory."""
    images = rows.view(*sides, count, channels).permute(2, 3, 0, 1)
    return images.contiguous(memory_format=torch.channels_last)


def _join_tiles(results: Tensor, plan: _Plan, count: int) -> Tensor:
    """Turn (T, M, N * C) into (N, H', W', C)."""
    (down, across), (height, width) = plan.tiles, plan.tile
    parts = results.view(down, across, height, width, count, -1).permute(4, 0, 2, 1, 3, 5)
    joined = parts.reshape(count, down * height, across * width, -1)
    return joined[:, : plan.output[0], : plan.output[1]]


def _cut_tiles(images: Tensor, plan: _Plan) -> Tensor:
    """Turn (N, C, H', W') into (T, M, N * C), with zeros beyond the border."""
    (down, across), (height, width) = plan.tiles, plan.tile
    count, channels, *sides = images.shape
    padded = images.new_zeros(down * height, across * width, count, channels)
    padded[: sides[0], : sides[1]] = images.permute(2, 3, 0, 1)
    parts = padded.view(down, height, across, width, -1).permute(0, 2, 1, 3, 4)
    return parts.reshape(down * across, height * width, -1)


@functools.cache
def _make_plan(kernel: Sides, padding: Sides, sides: Sides, dtype: torch.dtype) -> _Plan:
    axes = [_plan_side(*axis) for axis in zip(kernel, padding, sides, strict=True)]
    (spread_y, taps_y, collect_y), (spread_x, taps_x, collect_x) = axes
    tiles, tile = (len(spread_y), len(spread_x)), (len(collect_y), len(collect_x))
    points = taps_y.shape[0] * taps_x.shape[0]
    spread = np.einsum("tph,uqw->pqtuhw", spread_y, spread_x).reshape(points * tiles[0] * tiles[1], -1)
    taps, collect = np.kron(taps_y, taps_x), np.kron(collect_y, collect_x)
    height, width = (side + 2 * edge - length + 1 for length, edge, side in zip(kernel, padding, sides, strict=True))
    to_points, to_filters, to_outputs = (torch.from_numpy(matrix).to(dtype) for matrix in (spread, taps, collect))
    return _Plan(to_points, to_filters, to_outputs, tiles, tile, (height, width))


def _plan_side(taps: int, padding: int, side: int) -> tuple[NDArray[np.float64], ...]:
    """Return of one axis: spread (T, P, side), taps (P, taps) and collect (M, P), for the M of fewest products."""
    outputs = side + 2 * padding - taps + 1
    sizes = range(1, min(outputs, len(_POINTS) + 2 - taps) + 1)
    size = min(sizes, key=lambda size: (-(-outputs // size) * (size + taps - 1), size))
    points = size + taps - 1
    # Polynomials with `taps` and `size` coefficients are multiplied by their values; the transpose correlates.
    interpolate = np.linalg.inv(_evaluate(points, points)).T
    tiles = -(-outputs // size)
    spread = np.zeros((tiles, points, padding + tiles * size + taps + side))
    for tile in range(tiles):
        spread[tile, :, tile * size : tile * size + points] = interpolate
    return spread[:, :, padding : padding + side], _evaluate(points, taps), _evaluate(points, size).T


def _evaluate(points: int, coefficients: int) -> NDArray[np.float64]:
    """Return (points, coefficients): a polynomial to its values at the points; at infinity, its highest coefficient."""
    values = np.vander((*_POINTS[: points - 1], 0.0), coefficients, increasing=True)
    values[-1] = np.eye(coefficients)[-1]
    return values
