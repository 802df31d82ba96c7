"""Convolutions in fewer multiplications: torch's results and gradients, and no more rounding error than float32 allows."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gender_classifier.train.winograd import convolve_by_points


def run(function: object, tensors: list[Tensor], gradient: Tensor, padding: tuple[int, int]) -> list[Tensor]:
    """Return the output, and the gradients of images, weight and bias."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    output = (
        convolve_by_points(*leaves, padding) if function is convolve_by_points else F.conv2d(*leaves, padding=padding)
    )
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]


def draw(
    kind: torch.dtype, count: int, channels: tuple[int, int], kernel: tuple[int, int], sides: tuple[int, int]
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, channels[0], *sides), (channels[1], channels[0], *kernel), (channels[1],)]
    return [torch.randn(shape, dtype=torch.float64, generator=generator).to(kind) for shape in shapes]


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 3), channels=st.tuples(*[st.integers(1, 3)] * 2), kernel=st.tuples(*[st.integers(1, 7)] * 2),
    padding=st.tuples(*[st.integers(0, 3)] * 2), sides=st.tuples(*[st.integers(1, 13)] * 2), is_planar=st.booleans(),
)  # fmt: skip
def test_output_and_gradients_are_those_of_torchs_convolution(
    count: int, channels: tuple[int, int], kernel: tuple[int, int], padding: tuple[int, int], sides: tuple[int, int],
    is_planar: bool,
) -> None:  # fmt: skip
    output = [side + 2 * edge - length + 1 for side, edge, length in zip(sides, padding, kernel, strict=True)]
    assume(min(output) > 0)
    tensors = draw(torch.float64, count, channels, kernel, sides)
    if not is_planar:
        tensors[:2] = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors[:2]]
    gradient = torch.randn(count, channels[1], *output, dtype=torch.float64)
    expected = run(F.conv2d, tensors, gradient, padding)
    for ours, theirs in zip(run(convolve_by_points, tensors, gradient, padding), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kernel", "padding", "side"), [(3, 1, 3), (5, 2, 7), (3, 1, 12), (5, 2, 12)])
def test_float32_rounds_little_more_than_torch_does(kernel: int, padding: int, side: int) -> None:
    exact_tensors = draw(torch.float64, 8, (64, 64), (kernel, kernel), (side, side))
    gradient = torch.randn(8, 64, side, side, dtype=torch.float64)
    exact = run(F.conv2d, exact_tensors, gradient, (padding, padding))
    found = run(convolve_by_points, [tensor.float() for tensor in exact_tensors], gradient.float(), (padding, padding))
    for ours, want in zip(found, exact, strict=True):
        assert float((ours.double() - want).norm() / want.norm()) < 2e-5


def test_gradients_are_those_of_finite_differences() -> None:
    leaves = [tensor.requires_grad_() for tensor in draw(torch.float64, 2, (2, 3), (3, 3), (4, 3))]
    assert torch.autograd.gradcheck(lambda *tensors: convolve_by_points(*tensors, (1, 1)), leaves)


def test_the_output_is_channels_last_and_may_be_changed_in_place() -> None:
    leaves = [tensor.requires_grad_() for tensor in draw(torch.float32, 2, (4, 6), (5, 5), (7, 7))]
    output = convolve_by_points(*leaves, (2, 2))
    assert output.is_contiguous(memory_format=torch.channels_last)
    output.relu_().sum().backward()
    plain = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    F.conv2d(*plain, padding=2).relu_().sum().backward()
    for ours, theirs in zip(leaves, plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)


def test_equal_input_gives_equal_bits() -> None:
    tensors, gradient = draw(torch.float32, 16, (64, 64), (5, 5), (7, 7)), torch.randn(16, 64, 7, 7)
    first, again = (run(convolve_by_points, tensors, gradient, (2, 2)) for _ in range(2))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, again, strict=True))
