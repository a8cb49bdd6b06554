"""The convolutional subnet in bfloat16 on a CPU, as one operation made of matrix products.

Between few channels and many, a k x k convolution leaves most of a CPU's vector lanes empty. A matrix product fills them: towards
many channels, of the k x k neighbourhoods of all pixels (patches); towards few, of each pixel with every tap of the kernel, whose
products are then summed at each pixel.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.modes import cached_constant

_TAPS = 2.6
"""Most taps per hidden channel, k^2 C of the first layer and k^2 D of the last, at which matrix products were faster."""

_PATCHED = 8
"""Fewest channels at which the gradient of the first layer's weight is faster by a matrix product than by torch's convolution."""

_UNITS = (torch.complex128, torch.int64, torch.int32, torch.int16)
"""Types of 16, 8, 4 and 2 bytes."""


def is_fast(x: Tensor, first: Tensor, last: Tensor) -> bool:
    """Whether autocast to bfloat16 is on, and :func:`bottleneck` is faster; the arguments are as for it.

    Never under ``torch.compile``, which cannot infer shapes of oneDNN's own operations.
    """
    if (
        torch.compiler.is_compiling()
        or x.device.type != "cpu"
        or not torch.is_autocast_enabled("cpu")
        or torch.get_autocast_dtype("cpu") != torch.bfloat16
    ):
        return False
    narrow = first[0].numel() <= _TAPS * len(first) and last[:, 0].numel() <= _TAPS * last.shape[1]
    return narrow and x.dtype == torch.float32 and x.numel() > 0 and _has_kernels()


@functools.cache
def _has_kernels() -> bool:
    operations = ("_is_mkldnn_bf16_supported", "_convolution_pointwise", "_linear_pointwise")
    if "AVX512" not in torch.backends.cpu.get_cpu_capability() or not all(hasattr(torch.ops.mkldnn, name) for name in operations):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bottleneck(x: Tensor, first: Tensor, hidden: Tensor, last: Tensor, biases: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Convolutions k x k, 1 x 1 and k x k with ReLU between them, in bfloat16; (B, D, H, W), float32.

    Sums are in float32 and rounded to bfloat16 after each layer, as under autocast; the k^2 products that each pixel of the last
    layer adds up are rounded too. The last bias is added in float32.

    Args:
        x: (B, C, H, W), float32.
        first: weight (N, C, k, k), k odd.
        hidden: weight (M, N, 1, 1).
        last: weight (D, M, k, k).
        biases: (N,), (M,) and (D,); the first two may differ between samples, (B, N) and (B, M), or pixels, (B, N, H, W).
    """
    return _Bottleneck.apply(x, first, hidden, last, *biases)  # type: ignore[no-untyped-call,no-any-return]


class _Bottleneck(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        first, hidden, last, bias, hidden_bias = (parameter.to(torch.bfloat16) for parameter in parameters[:-1])
        with torch.autocast("cpu", enabled=False):
            narrow = x.to(torch.bfloat16, memory_format=torch.channels_last)
            same = [first.shape[2] // 2, first.shape[3] // 2]
            first = first.contiguous(memory_format=torch.channels_last)
            shared = [value if value.dim() == 1 else None for value in (bias, hidden_bias)]
            ends = ["none" if value is None else "relu" for value in shared]
            wide = torch.ops.mkldnn._convolution_pointwise(narrow, first, shared[0], same, [1, 1], [1, 1], 1, ends[0], [], "")
            one = _rows(wide)
            if shared[0] is None:
                one = _add_to_samples(one, bias).relu_()
            hidden = hidden.flatten(1)
            two = torch.ops.mkldnn._linear_pointwise(one, hidden, shared[1], ends[1], [], "")
            if shared[1] is None:
                two = _add_to_samples(two, hidden_bias).relu_()
            taps = last.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, last.shape[1])
            output = _collect(two, taps, x, last.shape[2]) + parameters[-1].float()[:, None, None]
        ctx.save_for_backward(x, *parameters, narrow, one, two, first, hidden, taps)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters, narrow, one, two, first, hidden, taps = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return _with_graph(x, parameters, grad, needed)
        with torch.autocast("cpu", enabled=False):
            size = first.shape[2]
            patches = _patches(grad, size)
            grad_last = grad_hidden = grad_x = None
            if needed[3]:
                grad_last = _summed_products(patches, two).view(size, size, -1, two.shape[1]).permute(2, 3, 0, 1).flip(2, 3)
            grad_two = _through_relu(patches @ taps, two)
            if needed[2]:
                grad_hidden = _summed_products(grad_two, one)[:, :, None, None]
            grad_one = _through_relu(grad_two @ hidden, one)
            grad_first, grad_bias = _grad_first(narrow, first, grad_one) if needed[1] or needed[4] else (None, None)
            if needed[0]:
                grad_x = _collect(grad_one, first.permute(2, 3, 1, 0).flatten(0, 2), x, size)
            if parameters[3].dim() > 1 and needed[4]:
                grad_bias = _grad_of_samples(grad_one, parameters[3])
            of_hidden = _grad_of_samples(grad_two, parameters[4]) if parameters[4].dim() > 1 else grad_two.sum(0)
            biases = (grad_bias, of_hidden, grad.sum((0, 2, 3)))
            found = (grad_x, grad_first, grad_hidden, grad_last, *biases)
            return tuple(one.float() if one is not None and wanted else None for one, wanted in zip(found, needed, strict=True))


def _add_to_samples(rows: Tensor, bias: Tensor) -> Tensor:
    """Add a bias (B, N) to all rows of a sample in (B H W, N), or maps (B, N, H, W) to the rows of their pixels, in place."""
    if bias.dim() == 4:
        return rows.add_(_rows(bias))
    rows.view(len(bias), -1, bias.shape[1]).add_(bias[:, None])
    return rows


def _grad_of_samples(grad: Tensor, bias: Tensor) -> Tensor:
    """Gradient with respect to the bias of :func:`_add_to_samples`, given that of its result."""
    return _maps(grad, bias) if bias.dim() == 4 else grad.view(len(bias), -1, grad.shape[1]).sum(1)


def _grad_first(narrow: Tensor, first: Tensor, grad_one: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the first layer's weight and bias, given its input and the gradient of its output, (B H W, N)."""
    size, channels = first.shape[2], first.shape[1]
    if channels >= _PATCHED:
        products = _summed_products(_patches(narrow, size), grad_one)
        return products.view(size, size, channels, -1).permute(3, 2, 0, 1), grad_one.sum(0)
    same = [size // 2, size // 2]
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        _maps(grad_one, narrow), narrow, first, [len(first)], [1, 1], same, [1, 1], False, [0, 0], 1, [False, True, True]
    )[1:]


def _summed_products(one: Tensor, other: Tensor) -> Tensor:
    """The product (M, N) of rows (B, M), transposed, and rows (B, N); for even B as two halves, which is faster."""
    halves = 1 if len(one) % 2 else 2
    products = torch.bmm(one.view(halves, -1, one.shape[1]).transpose(1, 2), other.view(halves, -1, other.shape[1]))
    return products.sum(0, dtype=torch.float32)


def _rows(maps: Tensor) -> Tensor:
    """Each pixel's channels, (B H W, C), of maps (B, C, H, W)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """The reverse of :func:`_rows`, for maps with the batch size, height and width of ``like``."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _through_relu(grad: Tensor, output: Tensor) -> Tensor:
    """Gradient with respect to ReLU's input, given its output; overwrites the gradient with respect to the output."""
    return torch.ops.aten.threshold_backward.grad_input(grad, output, 0, grad_input=grad)  # type: ignore[no-any-return]


def _patches(x: Tensor, size: int) -> Tensor:
    """The neighbourhood of each pixel, (B H W, k k C), of maps (B, C, H, W); zeros beyond the border."""
    batch, channels, height, width = x.shape
    side = size // 2
    padded = x.new_zeros((batch, height + 2 * side, width + 2 * side, channels), dtype=torch.bfloat16)
    padded[:, side : side + height, side : side + width] = x.to(torch.bfloat16).permute(0, 2, 3, 1)
    # Copies of few bytes at a time are slow: a pixel's channels are moved in the largest units, and a row of the window at once.
    unit = next(kind for kind in _UNITS if 2 * channels % kind.itemsize == 0)
    units = padded.view(unit)
    image, line, pixel, _ = units.stride()
    patches = units.new_empty((batch, height, width, size, size * pixel))
    for row in range(size):
        patches[:, :, :, row] = units.as_strided((batch, height, width, size * pixel), (image, line, pixel, 1), row * line)
    return patches.view(-1, size * size * pixel).view(torch.bfloat16)


def _collect(rows: Tensor, taps: Tensor, like: Tensor, size: int) -> Tensor:
    """A convolution of rows (B H W, M) towards few channels, with the taps (k k D, M) of a kernel from last to first."""
    held = (rows @ taps.t()).view(-1, len(taps) // size**2)
    places, starts = _neighbours(like.shape[0], like.shape[2], like.shape[3], size)
    return _maps(torch.embedding_bag(held, places, starts, include_last_offset=True)[0], like)


@cached_constant
def _neighbours(batch: int, height: int, width: int, size: int) -> tuple[Tensor, Tensor]:
    """Places of the products that each pixel adds up, and where each pixel's list of places starts."""
    side = size // 2
    pixels = torch.arange(batch * height * width, dtype=torch.int32).view(batch, 1, height, width)
    padded = functional.pad(pixels, (side, side, side, side), value=-1)
    near = padded.unfold(2, size, 1).unfold(3, size, 1).reshape(-1, size * size)
    # A neighbour at the first place of a window is reached by the kernel's last tap; taps are in that order.
    places = near * size**2 + torch.arange(size**2 - 1, -1, -1, dtype=torch.int32)
    inside = near >= 0
    starts = functional.pad(inside.sum(1).cumsum(0), (1, 0)).int()
    return places[inside].contiguous(), starts


def _with_graph(x: Tensor, parameters: list[Tensor], grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradient as a differentiable function."""
    first, hidden, last, *biases = parameters
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        y = _biased(functional.conv2d(x, first, padding=first.shape[2] // 2), biases[0]).relu()
        y = _biased(functional.conv2d(y, hidden), biases[1]).relu()
        y = functional.conv2d(y, last, biases[2], padding=last.shape[2] // 2).float()
    inputs = [value for value, wanted in zip((x, *parameters), needed, strict=True) if wanted]
    found = iter(torch.autograd.grad(y, inputs, grad, create_graph=True))
    return tuple(next(found) if wanted else None for wanted in needed)


def _biased(maps: Tensor, bias: Tensor) -> Tensor:
    """Maps (B, N, H, W) plus a bias, (N,), (B, N) or (B, N, H, W), in the maps' type."""
    bias = bias.to(maps.dtype)
    return maps + (bias if bias.dim() == 4 else bias.view(-1, maps.shape[1], 1, 1))
