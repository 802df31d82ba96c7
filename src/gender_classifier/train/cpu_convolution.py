"""Convolutions that a CPU trains faster than PyTorch's own, in fp32 and in bf16; the results differ by rounding."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from gender_classifier.train.winograd import convolve_by_points

_KERNELS = {(3, 3), (5, 5)}


class CpuConv2d(nn.Conv2d):
    """A convolution of stride 1 that trains in bf16 by :func:`convolve_by_images`, else by :func:`convolve_by_points`.

    Without gradients, and in float32 on large images or few channels, it is ``nn.Conv2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve float (N, C, H, W) into (N, C', H', W')."""
        if not torch.is_grad_enabled() or not len(input):  # a batch is a number of channels below; 0 are none
            return super().forward(input)
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        assert not isinstance(self.padding, str)
        height, width = self.padding
        if input.dtype is torch.bfloat16:
            return convolve_by_images(input, self.weight, self.bias, (height, width))
        if self._saves_products(input):
            return convolve_by_points(input, self.weight, self.bias, (height, width))
        return super().forward(input)

    def _saves_products(self, input: Tensor) -> bool:
        # The transforms are dense matrices over all positions: beyond as many positions as channels they cost more
        # than the multiplications they save.
        positions = input.shape[2] * input.shape[3]
        return positions <= min(self.weight.shape[:2]) and self.kernel_size in _KERNELS


def use_cpu_convolutions(model: nn.Module) -> None:
    """Put a :class:`CpuConv2d` in the place of each convolution of ``model`` that it can stand for, in place."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2d and _is_replaceable(layer):
                with torch.device("meta"):  # its own weights are dropped at once
                    new = CpuConv2d(
                        layer.in_channels,
                        layer.out_channels,
                        layer.kernel_size,  # type: ignore[arg-type]
                        padding=layer.padding,  # type: ignore[arg-type]
                        bias=layer.bias is not None,
                    )
                new.weight, new.bias = layer.weight, layer.bias
                setattr(parent, name, new.train(layer.training))


def _is_replaceable(layer: nn.Conv2d) -> bool:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    is_inside = all(padding < side for padding, side in zip(layer.padding, layer.kernel_size, strict=True))
    return is_inside and (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)


def convolve_by_images(images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Convolve as PyTorch does, with the gradient of the weights computed as a convolution too.

    That gradient correlates the images with the gradient of the output, summed over the batch: a convolution in which
    batch and channels have changed places. In bf16, oneDNN computes this in two thirds of the time of its own backward
    pass. Arguments and result are those of :func:`convolve_by_points`, for any kernel.
    """
    output: Tensor = _ByImages.apply(images, weight, bias, padding)
    return output


class _ByImages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        weight = weight.to(images.dtype)
        ctx.save_for_backward(images, weight)
        ctx.padding, ctx.has_bias = padding, bias is not None
        return F.conv2d(images, weight, None if bias is None else bias.to(images.dtype), padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
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
        by_bias = gradient.sum(dim=(0, 2, 3), dtype=exact) if ctx.has_bias else None
        return by_images, by_weight, by_bias, None


def _swap(images: Tensor) -> Tensor:
    return images.transpose(0, 1).contiguous(memory_format=torch.channels_last)
