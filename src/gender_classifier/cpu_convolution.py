"""Convolutions that a CPU trains faster than PyTorch's own, in fp32 and in bf16; the results differ by rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


class CpuConv2d(nn.Conv2d):
    """A convolution of stride 1 that trains by :func:`convolve_by_taps`, in bf16 by :func:`convolve_by_images`."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve float (N, C, H, W) into (N, C', H', W')."""
        if not torch.is_grad_enabled() or not len(input):  # a batch is a number of channels below; 0 are none
            return super().forward(input)
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        assert self.bias is not None
        assert not isinstance(self.padding, str)
        height, width = self.padding
        convolve = convolve_by_images if input.dtype is torch.bfloat16 else convolve_by_taps
        return convolve(input, self.weight, self.bias, (height, width))


def use_cpu_convolutions(model: nn.Module) -> None:
    """Put a :class:`CpuConv2d` in the place of each convolution of ``model`` that it can stand for, in place."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2d and _is_replaceable(layer):
                with torch.device("meta"):  # its own weights are dropped at once
                    new = CpuConv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding)  # type: ignore[arg-type]
                new.weight, new.bias = layer.weight, layer.bias
                setattr(parent, name, new.train(layer.training))


def _is_replaceable(layer: nn.Conv2d) -> bool:
    if layer.bias is None or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    is_inside = all(padding < side for padding, side in zip(layer.padding, layer.kernel_size, strict=True))
    return is_inside and (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)


def convolve_by_taps(images: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
    """Convolve as one matrix product per tap of the kernel, over the pixels at which the tap meets the image.

    Nothing is multiplied by the padding, which is 40 % of the products of a 3x3 kernel on 3x3 pixels.

    Args:
        images: float (N, C, H, W).
        weight: (C', C, K, L); fastest if channels-last.
        bias: (C',).
        padding: of H and W, px.
    """
    output: Tensor = _ByTaps.apply(images, weight, bias, padding)
    return output


def convolve_by_images(images: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
    """Convolve as PyTorch does, with the gradient of the weights computed as a convolution too.

    That gradient correlates the images with the gradient of the output, summed over the batch: a convolution in which
    batch and channels have changed places. In bf16, oneDNN computes this in two thirds of the time of its own backward
    pass. Arguments are those of :func:`convolve_by_taps`.
    """
    output: Tensor = _ByImages.apply(images, weight, bias, padding)
    return output


class _ByTaps(torch.autograd.Function):
    """Holds images by pixel, (H, W, N, C): the rows that a tap meets are then one matrix of a few hundred rows."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        pixels = _by_pixel(images)
        weight = weight.contiguous(memory_format=torch.channels_last)  # each tap a matrix that BLAS reads in place
        ctx.save_for_backward(pixels, weight)
        ctx.padding = padding
        sides = zip(images.shape[2:], weight.shape[2:], padding, strict=True)
        height, width = (side - kernel + 1 + 2 * border for side, kernel, border in sides)
        output = bias.repeat(height, width, len(images), 1)
        for (row, column), seen, made in _find_taps(pixels, output, weight.shape[2:], padding):
            made.baddbmm_(seen, _expand(weight[:, :, row, column].mT, seen))
        return _by_image(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        pixels, weight = ctx.saved_tensors
        gradient = _by_pixel(gradient)
        by_pixels, by_weight = None, torch.zeros_like(weight)
        for (row, column), seen, made in _find_taps(pixels, gradient, weight.shape[2:], ctx.padding):
            by_weight[:, :, row, column].addbmm_(made.mT, seen)
        if ctx.needs_input_grad[0]:
            by_pixels = torch.zeros_like(pixels)
            for (row, column), seen, made in _find_taps(by_pixels, gradient, weight.shape[2:], ctx.padding):
                seen.baddbmm_(made, _expand(weight[:, :, row, column], made))
            by_pixels = _by_image(by_pixels)
        return by_pixels, by_weight, gradient.sum(dim=(0, 1, 2)), None


def _by_pixel(images: Tensor) -> Tensor:
    return images.permute(2, 3, 0, 1).contiguous()


def _by_image(pixels: Tensor) -> Tensor:
    return pixels.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _expand(matrix: Tensor, batch: Tensor) -> Tensor:
    return matrix.expand(len(batch), *matrix.shape)


def _find_taps(
    pixels: Tensor, output: Tensor, kernel: torch.Size, padding: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], Tensor, Tensor]]:
    """Yield each tap, what it sees of ``pixels`` (H, W, N, C), and where it adds to ``output`` (H', W', N, C').

    Both are views (rows of the image, pixels of a row and images, channels) of equal length.
    """
    down, across = (
        list(_find_overlaps(*sides)) for sides in zip(pixels.shape[:2], output.shape[:2], kernel, padding, strict=True)
    )
    for row, seen_rows, made_rows in down:
        for column, seen_columns, made_columns in across:
            seen, made = pixels[seen_rows, seen_columns], output[made_rows, made_columns]
            yield (row, column), *(part.view(len(part), -1, part.shape[3]) for part in (seen, made))  # type: ignore[misc]


def _find_overlaps(side: int, made: int, kernel: int, padding: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each tap along one side that meets the image, where in the image, and for which results."""
    for tap in range(kernel):
        shift = tap - padding
        start, stop = max(0, -shift), min(made, side - shift)
        if start < stop:
            yield tap, slice(start + shift, stop + shift), slice(start, stop)


class _ByImages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        weight = weight.to(images.dtype)
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        return F.conv2d(images, weight, bias.to(images.dtype), padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        images, weight = ctx.saved_tensors
        by_images = None
        if ctx.needs_input_grad[0]:
            by_images = conv2d_input(images.shape, weight, gradient, padding=ctx.padding)  # type: ignore[no-untyped-call]
        if images.shape[1] < gradient.shape[1]:  # it is quicker to the side with fewer channels
            sides = zip(weight.shape[2:], ctx.padding, strict=True)
            padding = [side - 1 - padding for side, padding in sides]
            by_weight = F.conv2d(_swap(gradient), _swap(images), padding=padding).flip(2, 3)
        else:
            by_weight = F.conv2d(_swap(images), _swap(gradient), padding=ctx.padding).transpose(0, 1)
        exact = torch.promote_types(gradient.dtype, torch.float32)
        by_weight = by_weight.to(exact, memory_format=torch.channels_last)
        return by_images, by_weight, gradient.sum(dim=(0, 2, 3), dtype=exact), None


def _swap(images: Tensor) -> Tensor:
    return images.transpose(0, 1).contiguous(memory_format=torch.channels_last)
