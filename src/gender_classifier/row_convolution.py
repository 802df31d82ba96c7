"""3x3 convolutions of maps with few rows, as matrix products that leave out what lies in the padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_MAX_ROWS = 4  # of a map; with more rows, little of it is padding


class RowConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps the size of its map, and its weights where ``nn.Conv2d`` has them.

    AlexNet's last three make 3x3 maps of 3x3 maps, so that two of nine products are with a row of zeros. In
    training this one takes one matrix product an output row (im2col: Chellapilla et al. 2006), over the rows that
    there are; it differs from ``nn.Conv2d`` by rounding. Where no gradients are wanted, and for taller maps, it is
    ``nn.Conv2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve float (N, C, H, W) into (N, C', H, W), channels-last in memory."""
        if not torch.is_grad_enabled() or input.shape[2] > _MAX_ROWS:
            return super().forward(input)
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        rows: Tensor = _RowConvolution.apply(input.permute(0, 2, 3, 1), self.weight, self.bias)
        return rows.permute(0, 3, 1, 2)


def use_row_convolutions(model: nn.Module) -> None:
    """Put a :class:`RowConv2d` in the place of each convolution of ``model`` that it can stand for, in place."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2d and _is_replaceable(layer):
                with torch.device("meta"):  # its own weights are dropped at once
                    new = RowConv2d(layer.in_channels, layer.out_channels, 3, padding=1)
                new.weight, new.bias = layer.weight, layer.bias
                setattr(parent, name, new.train(layer.training))


def _is_replaceable(layer: nn.Conv2d) -> bool:
    if layer.bias is None or layer.padding_mode != "zeros":
        return False
    shape = (layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)


class _RowConvolution(torch.autograd.Function):
    """Takes (N, H, W, C), weights (C', C, 3, 3) and a bias (C',); gives (N, H, W, C') of the images' type."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = weight.to(images.dtype), bias.to(images.dtype)
        wide = _widen(images)
        ctx.save_for_backward(wide, weight)
        kernel = weight.permute(0, 2, 3, 1).flatten(2)  # (C', 3, 3C), as `wide` has them
        rows = [F.linear(near, kernel[:, taps].flatten(1), bias) for near, taps in _rows(wide)]
        return _stack(rows, wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide, weight = ctx.saved_tensors
        outputs, inputs = weight.shape[:2]
        # The gradient of the images is a convolution as well: of the gradient, with the weights turned around.
        spread = _widen(gradient)
        kernel = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(3, 3 * outputs, inputs)
        by_images = _stack([near @ kernel[taps].flatten(0, 1) for near, taps in _rows(spread)], wide)
        own, height = spread[..., outputs : 2 * outputs], wide.shape[2]
        by_weight = wide.new_empty(3, outputs, 3 * inputs)
        for tap in range(3):
            first, last = max(1 - tap, 0), min(height + 1 - tap, height)  # the output rows that this tap reaches
            met = wide[:, :, first + tap - 1 : last + tap - 1].flatten(0, 2)
            torch.mm(own[:, :, first:last].flatten(0, 2).T, met, out=by_weight[tap])
        by_weight = by_weight.view(3, outputs, 3, inputs).permute(1, 3, 0, 2)
        exact = torch.promote_types(own.dtype, torch.float32)
        return by_images, by_weight, own.sum(dim=(0, 1, 2), dtype=exact)


def _stack(rows: Sequence[Tensor], wide: Tensor) -> Tensor:
    """Turn rows, (N * W, C) each, into (N, H, W, C)."""
    return torch.stack([row.view(*wide.shape[:2], row.shape[1]) for row in rows], dim=1)


def _widen(images: Tensor) -> Tensor:
    """Turn (N, H, W, C) into (N, W, H, 3C): at each place the left neighbour, the place, the right neighbour."""
    width = images.shape[2]
    padded = F.pad(images, (0, 0, 1, 1)).transpose(1, 2)
    return torch.cat([padded[:, start : start + width] for start in range(3)], dim=3)


def _rows(wide: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Yield for each row what a kernel meets there, (N * W, k * 3C), and which k of the kernel's rows meet it."""
    height = wide.shape[2]
    for row in range(height):
        first, last = max(row - 1, 0), min(row + 2, height)
        yield wide.flatten(0, 1)[:, first:last].flatten(1), slice(first - row + 1, last - row + 1)
