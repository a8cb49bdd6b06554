"""The convolutional subnet as one operation: results, gradients of first and second order, and when it is used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf import subnets
from flowclf.subnets import bf16_bottleneck as module
from flowclf.subnets import convolutional
from flowclf.subnets.bf16_bottleneck import bottleneck, is_fast

SHAPES = [
    ((4, 3, 6, 7), 5, 3),
    ((3, 4, 5, 5), 2, 5),
    ((2, 3, 4, 4), 3, 1),
    ((1, 2, 1, 2), 2, 3),
    ((2, 9, 5, 4), 8, 3),
    ((2, 9, 64, 64), 4, 3),
]

needs_kernels = pytest.mark.skipif(not module._has_kernels(), reason="this processor has no bf16 of its own")


def _values(shape: tuple[int, ...], channels_out: int, size: int, width: int = 16) -> list[Tensor]:
    """The input, three weights and three biases."""
    torch.manual_seed(0)
    channels = shape[1]
    shapes = [(width, channels, size, size), (width, width, 1, 1), (channels_out, width, size, size)]
    weights = [torch.randn(one) / torch.tensor(one[1:]).prod().sqrt() for one in shapes]
    biases = [torch.randn(one[0]) for one in shapes]
    return [value.requires_grad_() for value in (torch.randn(shape), *weights, *biases)]


def _fused(x: Tensor, first: Tensor, hidden: Tensor, last: Tensor, *biases: Tensor) -> Tensor:
    return bottleneck(x, first, hidden, last, (biases[0], biases[1], biases[2]))


def _plain(x: Tensor, first: Tensor, hidden: Tensor, last: Tensor, *biases: Tensor) -> Tensor:
    padding = first.shape[2] // 2
    y = functional.conv2d(x, first, biases[0], padding=padding).relu()
    y = functional.conv2d(y, hidden, biases[1]).relu()
    return functional.conv2d(y, last, biases[2], padding=padding)


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


@needs_kernels
@pytest.mark.parametrize(("shape", "channels_out", "size"), SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_as_near_to_float64_as_convolutions_in_bf16(
    shape: tuple[int, ...], channels_out: int, size: int, layout: torch.memory_format
) -> None:
    values = _values(shape, channels_out, size)
    grad = torch.randn(shape[0], channels_out, *shape[2:]).contiguous(memory_format=layout)
    values[0] = values[0].detach().contiguous(memory_format=layout).requires_grad_()
    exact = _plain(*(value.double() for value in values))
    rounded = _plain(*(value.bfloat16() for value in values))
    found = _fused(*values)
    assert found.dtype == torch.float32
    assert _distance(found, exact) < 1.5 * _distance(rounded, exact) + 1e-3
    gradients = [torch.autograd.grad(one, values, grad.to(one.dtype)) for one in (found, rounded, exact)]
    for ours, theirs, true in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        assert ours.shape == true.shape
        assert _distance(ours, true) < 1.5 * _distance(theirs, true.double()) + 1e-3


@needs_kernels
@pytest.mark.parametrize("own", [(0, 0), (0, None), (None, 0), (2, 0), (2, None), (2, 2)])
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[4]])
def test_biases_may_differ_between_samples_or_pixels(
    case: tuple[tuple[int, ...], int, int], own: tuple[int | None, int | None]
) -> None:
    """As near to float64 as before, with the gradients of each sample's bias; ``own`` are the axes of its maps, 2 or none."""
    values = _values(*case)
    for index, axes in zip((4, 5), own, strict=True):
        if axes is not None:
            values[index] = torch.randn(case[0][0], len(values[index]), *case[0][2:][:axes]).requires_grad_()

    def plain(x: Tensor, first: Tensor, hidden: Tensor, last: Tensor, *biases: Tensor) -> Tensor:
        one, two = (bias if bias.dim() == 4 else bias.view(-1, bias.shape[-1], 1, 1) for bias in biases[:2])
        y = (functional.conv2d(x, first, padding=first.shape[2] // 2) + one).relu()
        return functional.conv2d((functional.conv2d(y, hidden) + two).relu(), last, biases[2], padding=last.shape[2] // 2)

    exact, rounded = plain(*(value.double() for value in values)), plain(*(value.bfloat16() for value in values))
    found = _fused(*values)
    assert _distance(found, exact) < 1.5 * _distance(rounded, exact) + 1e-3
    grad = torch.randn(exact.shape)
    gradients = [torch.autograd.grad(one, values, grad.to(one.dtype), create_graph=one is found) for one in (found, rounded, exact)]
    for ours, theirs, true in zip(*gradients, strict=True):
        assert ours.shape == true.shape
        assert _distance(ours, true) < 1.5 * _distance(theirs, true.double()) + 1e-3


@needs_kernels
@pytest.mark.parametrize("wanted", [*([index] for index in range(7)), [2, 6]])
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[4]])
def test_only_what_needs_a_gradient_gets_one(case: tuple[tuple[int, ...], int, int], wanted: list[int]) -> None:
    values = _values(*case)
    whole = torch.autograd.grad(_fused(*values).sum(), values)
    frozen = [value if index in wanted else value.detach() for index, value in enumerate(values)]
    some = torch.autograd.grad(_fused(*frozen).sum(), [values[index] for index in wanted])
    assert all(torch.equal(one, whole[index]) for one, index in zip(some, wanted, strict=True))


@needs_kernels
def test_the_result_is_in_float32_whatever_the_parameters_are() -> None:
    x, *parameters = _values(*SHAPES[0])
    for kind in (torch.bfloat16, torch.float64):
        assert _fused(x, *(value.to(kind) for value in parameters)).dtype == torch.float32


@needs_kernels
def test_the_last_bias_is_not_rounded() -> None:
    x, first, hidden, last, *biases = _values(*SHAPES[0])
    found = _fused(x, first, hidden, torch.zeros_like(last), *biases)
    assert not torch.equal(biases[2], biases[2].bfloat16().float())
    assert torch.equal(found, biases[2][:, None, None].expand_as(found))


@pytest.mark.parametrize("rows", [64, 63])
def test_halves_of_a_weight_gradient_are_added_in_float32(rows: int) -> None:
    torch.manual_seed(0)
    one, other = torch.randn(rows, 5).bfloat16(), torch.randn(rows, 3).bfloat16()
    halves = [part.t() @ rest for part, rest in zip(one.chunk(2), other.chunk(2), strict=True)]
    expected = halves[0].float() + halves[1].float() if rows == 64 else (one.t() @ other).float()
    found = module._summed_products(one, other)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (rows == 64) == bool((found != found.bfloat16().float()).any())


@needs_kernels
def test_backward_leaves_the_gradient_it_is_given() -> None:
    values = _values(*SHAPES[0])
    output = _fused(*values)
    grad = torch.randn_like(output)
    kept = grad.clone()
    first = torch.autograd.grad(output, values, grad, retain_graph=True)
    second = torch.autograd.grad(output, values, grad)
    assert torch.equal(grad, kept)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@needs_kernels
def test_a_gradient_of_a_gradient_is_that_of_the_convolutions() -> None:
    values = _values(*SHAPES[0])
    penalties = []
    for function in (_fused, lambda *inputs: _plain(*(value.double() for value in inputs))):
        (grad_x,) = torch.autograd.grad(function(*values).square().sum(), values[0], create_graph=True)
        penalties.append(torch.autograd.grad(grad_x.double().square().sum(), values[1])[0])
    assert _distance(penalties[0], penalties[1].double()) < 3e-2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Inputs of the fused operation."""
    seen: list[Tensor] = []

    def watched(x: Tensor, *others: object) -> Tensor:
        seen.append(x)
        return bottleneck(x, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(convolutional, "bottleneck", watched)
    return seen


@needs_kernels
def test_a_subnet_uses_it_under_bf16_autocast_only(calls: list[Tensor]) -> None:
    subnet = subnets.conv(3, 4, width=32)
    x = torch.randn(2, 3, 4, 4)
    subnet(x)
    subnet.double()(x.double())
    assert not calls
    subnet.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        subnet(x)
        assert len(calls) == 1
        subnets.conv(3, 4, width=32, normalization="batch")(x)
        subnet(x[:0])
    assert len(calls) == 1


@needs_kernels
def test_a_part_of_a_subnet_runs_by_layers(calls: list[Tensor]) -> None:
    subnet = subnets.conv(3, 4, width=32)
    without_bias = subnets.conv(3, 4, width=32)
    without_bias[4].bias = None
    x = torch.randn(2, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert subnet[:3](x).shape == (2, 32, 4, 4)
        assert without_bias(x).shape == (2, 4, 4, 4)
    assert not calls


@needs_kernels
def test_a_subnet_with_hooks_calls_them(calls: list[Tensor]) -> None:
    subnet = subnets.conv(3, 4, width=32)
    assert isinstance(subnet, nn.Sequential)
    met: list[torch.Size] = []
    handle = subnet[1].register_forward_hook(lambda layer, inputs, output: met.append(output.shape))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        subnet(torch.randn(2, 3, 4, 4))
        assert met == [(2, 32, 4, 4)]
        assert not calls
        handle.remove()
        subnet(torch.randn(2, 3, 4, 4))
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_subnet_that_is_compiled_runs_by_layers(calls: list[Tensor]) -> None:
    subnet = subnets.conv(3, 4, width=32)
    nn.init.normal_(subnet[4].weight, std=0.1)
    x = torch.randn(2, 3, 4, 4)
    compiled = torch.compile(subnet, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = compiled(x)
        assert not calls
        torch.testing.assert_close(found.float(), subnet(x).float(), rtol=0, atol=0.05)


@pytest.mark.parametrize(("channels", "channels_out", "fits"), [(4, 4, True), (5, 4, False), (4, 5, False)])
def test_many_channels_are_left_to_convolutions(channels: int, channels_out: int, fits: bool) -> None:
    width = round(4 * 9 / module._TAPS)
    x, first, last = torch.randn(1, channels, 2, 2), torch.randn(width, channels, 3, 3), torch.randn(channels_out, width, 3, 3)
    assert not is_fast(x, first, last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert is_fast(x, first, last) == (fits and module._has_kernels())
        assert not is_fast(x.double(), first, last)
        assert not is_fast(x[:0], first, last)
