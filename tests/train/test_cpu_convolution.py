import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gender_classifier.model.network import build_model
from gender_classifier.train import cpu_convolution
from gender_classifier.train.cpu_convolution import CpuConv2d, convolve_by_images, use_cpu_convolutions
from gender_classifier.train.winograd import convolve_by_points

Convolve = Callable[[Tensor, Tensor, Tensor, tuple[int, int]], Tensor]


@contextmanager
def swap_in(convolve: Convolve) -> Iterator[None]:
    """Have float64 take either way, whatever the kernel and the channels."""
    always = mock.patch.object(CpuConv2d, "_saves_products", return_value=True)
    with always, mock.patch.object(cpu_convolution, "convolve_by_points", convolve):
        yield


def make_pair(
    inputs: int,
    outputs: int,
    kind: torch.dtype = torch.float64,
    kernel: tuple[int, int] = (3, 3),
    padding: tuple[int, int] = (1, 1),
) -> tuple[nn.Conv2d, CpuConv2d]:
    torch.manual_seed(0)
    plain, own = (layer(inputs, outputs, kernel, padding=padding) for layer in (nn.Conv2d, CpuConv2d))
    own.load_state_dict(plain.state_dict())
    return plain.to(kind), own.to(kind)


def run(layer: nn.Module, images: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of the images and of each parameter."""
    images = images.clone().requires_grad_()
    output = layer(images)
    output.backward(gradient)
    return [output.detach(), *(one.grad for one in (images, *layer.parameters()) if one.grad is not None)]


@settings(deadline=None, max_examples=80)
@given(
    convolve=st.sampled_from([convolve_by_points, convolve_by_images]),
    count=st.integers(0, 4), sides=st.tuples(*[st.integers(3, 7)] * 2), inputs=st.integers(1, 3),
    outputs=st.integers(1, 3), kernel=st.tuples(*[st.integers(1, 5)] * 2), padding=st.tuples(*[st.integers(0, 2)] * 2),
    is_planar=st.booleans(),
)  # fmt: skip
def test_output_and_gradients_are_those_of_torchs_convolution(
    count: int, sides: tuple[int, int], inputs: int, outputs: int, kernel: tuple[int, int], padding: tuple[int, int],
    is_planar: bool, convolve: Convolve,
) -> None:  # fmt: skip
    results = [side + 2 * width - length + 1 for side, width, length in zip(sides, padding, kernel, strict=True)]
    assume(min(results) > 0 and padding[0] < kernel[0] and padding[1] < kernel[1])
    plain, own = make_pair(inputs, outputs, kernel=kernel, padding=padding)
    order = torch.contiguous_format if is_planar else torch.channels_last
    images = torch.randn(count, inputs, *sides, dtype=torch.float64).contiguous(memory_format=order)
    gradient = torch.randn(count, outputs, *results, dtype=torch.float64)
    with swap_in(convolve):
        for theirs, ours in zip(run(plain, images, gradient), run(own, images, gradient), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("convolve", [convolve_by_points, convolve_by_images])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 2)])
def test_gradients_are_those_of_finite_differences(inputs: int, outputs: int, convolve: Convolve) -> None:
    _, own = make_pair(inputs, outputs)
    images = torch.randn(2, inputs, 3, 3, dtype=torch.float64)
    parts = [one.detach().requires_grad_() for one in (images, own.weight, own.bias) if one is not None]
    assert torch.autograd.gradcheck(lambda *tensors: convolve(*tensors, (1, 1)), parts)


@pytest.mark.parametrize(
    ("kind", "expected"), [(torch.float32, "convolve_by_points"), (torch.bfloat16, "convolve_by_images")], ids=str
)
def test_the_type_alone_chooses_the_way(kind: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor does not: bf16 takes its way where it is emulated too."""
    taken = []
    for name in ("convolve_by_points", "convolve_by_images"):
        original = getattr(cpu_convolution, name)
        monkeypatch.setattr(
            cpu_convolution, name, lambda *rest, name=name, original=original: taken.append(name) or original(*rest)
        )
    _, own = make_pair(32, 32, torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
        assert own(torch.randn(2, 32, 3, 3)).dtype == kind
    assert taken == [expected]


@pytest.mark.parametrize(
    ("shape", "kernel", "is_saving"),
    [
        ((2, 32, 5, 6), 5, True),
        ((2, 32, 2, 16), 3, True),
        ((2, 32, 3, 11), 3, False),  # more positions than channels: the transforms would cost too much
        ((2, 31, 4, 8), 3, False),
        ((2, 32, 7, 7), 1, False),  # nothing to save
    ],
)
def test_float32_takes_fewer_products_where_that_saves_time(
    shape: tuple[int, ...], kernel: int, is_saving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, own = make_pair(shape[1], 32, torch.float32, (kernel,) * 2, (kernel // 2,) * 2)
    taken = []
    monkeypatch.setattr(
        cpu_convolution, "convolve_by_points", lambda *rest: taken.append(rest) or convolve_by_points(*rest)
    )
    images, gradient = torch.randn(shape), torch.randn(2, 32, *shape[2:])
    for ours, theirs in zip(run(own, images, gradient), run(plain, images, gradient), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert bool(taken) == is_saving


def test_images_of_another_type_are_cast_under_autocast() -> None:
    _, own = make_pair(4, 4, torch.float32)
    images, gradient = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(own, images, gradient.bfloat16())
    assert [one.dtype for one in found] == [torch.bfloat16, *[torch.float32] * 3]


def test_bfloat16_is_no_further_from_the_exact_result_than_torchs_convolution() -> None:
    plain, own = make_pair(64, 64)
    images, gradient = (torch.randn(16, 64, 3, 3, dtype=torch.float64) for _ in range(2))
    exact = run(plain, images, gradient)
    errors = []
    for layer in (plain, own):
        with torch.autocast("cpu", torch.bfloat16):
            found = run(copy.deepcopy(layer).float(), images.bfloat16(), gradient.bfloat16())
        errors.append(
            [float((one.double() - want).norm() / want.norm()) for one, want in zip(found, exact, strict=True)]
        )
    for theirs, ours in zip(*errors, strict=True):
        assert ours <= max(1.2 * theirs, 0.005)


@pytest.mark.parametrize("head", ["linear", "full"])
def test_all_but_alexnets_first_are_replaced_and_its_weights_stay_where_they_were(head: str) -> None:
    model = build_model(head, 2, 64).eval()
    images = torch.randn(2, 3, 64, 64)
    before, weights = model(images).detach(), {name: value.data_ptr() for name, value in model.state_dict().items()}
    use_cpu_convolutions(model)
    assert [type(layer) is CpuConv2d for layer in model.modules() if isinstance(layer, nn.Conv2d)] == [
        False, True, True, True, True,
    ]  # fmt: skip
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == weights
    with torch.no_grad():
        assert torch.equal(model(images), before)  # without gradients, the same kernels as ever
    torch.testing.assert_close(model(images).detach(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 2},
        {"padding": 3},
        {"padding": "same"},
        {"dilation": 2},
        {"groups": 2},
        {"padding_mode": "reflect"},
    ],
    ids=str,
)
def test_other_convolutions_are_left_alone(change: dict[str, object]) -> None:
    layer = nn.Conv2d(4, 4, 3, **{"padding": 1, **change})  # type: ignore[arg-type]
    model = nn.Sequential(layer)
    use_cpu_convolutions(model)
    assert model[0] is layer
