"""Convolutional subnets for feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor, nn
from torch.nn import functional

from flowclf.argument_types import Decay, NonNegativeInt, PositiveInt
from flowclf.errors import GraphError
from flowclf.subnets import bf16_bottleneck
from flowclf.subnets.bf16_bottleneck import is_fast
from flowclf.subnets.building import makes_vectors, starts_at_zero, takes_maps

# Asked once: torch.compile cannot trace the question.
_CONVOLVES_FASTER = "AVX512" in torch.backends.cpu.get_cpu_capability()


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution by :func:`pointwise`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute feature maps (B, channels_out, H, W)."""
        return pointwise(x, self.weight.flatten(1), self.bias)


def pointwise(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply each pixel's channels by a matrix (channels_out, channels_in) and add a bias (channels_out,)."""
    # On a CPU with AVX2 a matrix product takes half of the time of torch's convolution; with AVX-512 the convolution is faster.
    if _CONVOLVES_FASTER and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16):
        return functional.conv2d(x, matrix[:, :, None, None], bias)
    return functional.linear(x.permute(0, 2, 3, 1), matrix, bias).permute(0, 3, 1, 2)


class Bottleneck(nn.Sequential):
    """Convolution, ReLU, 1x1 convolution, ReLU, convolution; under bf16 autocast on a CPU one operation where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute feature maps of the same height and width."""
        match list(self):
            case [nn.Conv2d() as first, nn.ReLU(), PointwiseConv2d() as hidden, nn.ReLU(), nn.Conv2d() as last]:
                usable = is_fast(x, first.weight, last.weight) and not any(map(is_hooked, self))
                if usable and first.bias is not None and hidden.bias is not None and last.bias is not None:
                    return bf16_bottleneck.bottleneck(
                        x, first.weight, hidden.weight, last.weight, (first.bias, hidden.bias, last.bias)
                    )
        result: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return result


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has hooks, which must be called when it runs."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


@takes_maps
def conv(
    channels_in: int,
    channels_out: int,
    *,
    width: PositiveInt = 64,
    kernel: PositiveInt = 3,
    normalization: Literal["none", "batch"] = "none",
) -> nn.Module:
    """Bottleneck of three convolutions, k x k, 1 x 1, k x k, with ReLU between them (Glow, 2018, section 3.3).

    Args:
        channels_in: channels of the input (B, C, H, W).
        channels_out: channels of the output; height and width stay.
        width: channels of the two hidden layers.
        kernel: k, odd.
        normalization: ``batch`` puts a batch norm before each ReLU (paper, appendix B.2).

    Raises:
        GraphError: if the kernel is even.
    """
    _check_odd("conv", kernel)

    def norm() -> list[nn.Module]:
        return [nn.BatchNorm2d(width)] if normalization == "batch" else []

    last = starts_at_zero(nn.Conv2d(width, channels_out, kernel, padding=kernel // 2))
    first = nn.Conv2d(channels_in, width, kernel, padding=kernel // 2)
    kind = Bottleneck if normalization == "none" else nn.Sequential
    return kind(first, *norm(), nn.ReLU(), PointwiseConv2d(width, width), *norm(), nn.ReLU(), last)


@takes_maps
def bottleneck(
    channels_in: int,
    channels_out: int,
    *,
    width: PositiveInt = 64,
    kernel: PositiveInt = 3,
    normalization: Literal["none", "batch"] = "batch",
) -> nn.Module:
    """Three convolutions, 1 x 1, k x k, 1 x 1, with ReLU between them (He et al., Deep residual learning, 2016, Figure 5).

    For many channels it costs less than ``conv``, whose first and last convolutions are k x k.

    Args:
        channels_in: channels of the input (B, C, H, W).
        channels_out: channels of the output; height and width stay.
        width: channels of the two hidden layers.
        kernel: k, odd.
        normalization: ``batch`` puts a batch norm before each ReLU, in place of the convolution's bias.

    Raises:
        GraphError: if the kernel is even.
    """
    _check_odd("bottleneck", kernel)
    batch = normalization == "batch"

    def then() -> list[nn.Module]:
        return [*([nn.BatchNorm2d(width)] if batch else []), nn.ReLU()]

    first = nn.Conv2d(channels_in, width, 1, bias=not batch)
    hidden = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=not batch)
    last = starts_at_zero(PointwiseConv2d(width, channels_out))
    return nn.Sequential(first, *then(), hidden, *then(), last)


class ConditionalBottleneck(nn.Module):
    """:class:`Bottleneck` with a linear function of a vector added before each ReLU; before the first, perhaps one per pixel."""

    def __init__(
        self, channels_in: int, channels_out: int, width: int, kernel: int, context_channels: int, pixels: int | None = None
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, width, kernel, padding=kernel // 2)
        self.hidden = PointwiseConv2d(width, width)
        self.last = starts_at_zero(nn.Conv2d(width, channels_out, kernel, padding=kernel // 2))
        self.context = nn.Linear(context_channels, 2 * width, bias=False) if context_channels else None
        self.maps = starts_at_zero(nn.Linear(context_channels, width * pixels, bias=False)) if pixels else None

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Compute feature maps (B, channels_out, H, W) from maps and vectors (B, context_channels)."""
        first, hidden, last = self.first, self.hidden, self.last
        if self.context is None:
            shifts: Sequence[Tensor] = (context.new_zeros(context.shape[0], 1),) * 2
        else:
            shifts = self.context(context).chunk(2, dim=1)
        before = shifts[0] if self.maps is None else self._maps(context, x) + shifts[0][:, :, None, None]
        usable = is_fast(x, first.weight, last.weight) and not any(map(is_hooked, self.children()))
        if usable and first.bias is not None and hidden.bias is not None and last.bias is not None:
            of_channels = first.bias if before.dim() == 2 else first.bias[:, None, None]
            biases = (of_channels + before, hidden.bias + shifts[1], last.bias)
            return bf16_bottleneck.bottleneck(x, first.weight, hidden.weight, last.weight, biases)
        x = functional.relu(first(x) + (before[:, :, None, None] if before.dim() == 2 else before))
        result: Tensor = last(functional.relu(hidden(x) + shifts[1][:, :, None, None]))
        return result

    def _maps(self, context: Tensor, x: Tensor) -> Tensor:
        """A map for each channel, (B, width, H, W), channels last, as convolutions prefer."""
        assert self.maps is not None
        maps: Tensor = self.maps(context)
        return maps.view(x.shape[0], *x.shape[2:], self.first.out_channels).permute(0, 3, 1, 2)


@takes_maps
def conditional_conv(
    channels_in: int,
    channels_out: int,
    *,
    context_channels: int,
    size: tuple[int, int],
    width: PositiveInt = 64,
    kernel: PositiveInt = 3,
    pixelwise: bool = False,
) -> nn.Module:
    """``conv`` for a coupling with a vector as condition, a linear function of which is added before each ReLU.

    It costs less than ``conv``, which sees the vector at each pixel of its input, and it moves all hidden channels.

    Args:
        channels_in: channels of the input (B, C, H, W).
        channels_out: channels of the output; height and width stay.
        context_channels: entries of the vector, supplied by the coupling.
        size: H and W, supplied by the coupling.
        width: channels of the two hidden layers.
        kernel: side of the first and last convolution, odd.
        pixelwise: add before the first ReLU also a map that is a linear function of the vector, and starts at zero.

    Raises:
        GraphError: if the kernel is even.
    """
    _check_odd("conditional_conv", kernel)
    pixels = math.prod(size) if pixelwise and context_channels else None
    return ConditionalBottleneck(channels_in, channels_out, width, kernel, context_channels, pixels)


class ResidualBlock(nn.Module):
    """x + convolution(ReLU(convolution(ReLU(x)))), the identity at first (He et al., Identity Mappings, 2016, without norms)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        first, last = (nn.Conv2d(width, width, kernel, padding=kernel // 2) for _ in range(2))
        self.layers = nn.Sequential(nn.ReLU(), first, nn.ReLU(), starts_at_zero(last))

    def forward(self, x: Tensor) -> Tensor:
        """Compute feature maps of the same shape."""
        change: Tensor = self.layers(x)
        return x + change


@takes_maps
def residual(
    channels_in: int, channels_out: int, *, width: PositiveInt = 64, blocks: NonNegativeInt = 2, kernel: PositiveInt = 3
) -> nn.Module:
    """A residual network at one resolution: convolution, residual blocks of two convolutions each, ReLU, 1x1 convolution.

    Args:
        channels_in: channels of the input (B, C, H, W).
        channels_out: channels of the output; height and width stay.
        width: channels of the hidden layers.
        blocks: residual blocks.
        kernel: side of the convolutions, odd.

    Raises:
        GraphError: if the kernel is even.
    """
    _check_odd("residual", kernel)
    last = starts_at_zero(PointwiseConv2d(width, channels_out))
    first = nn.Conv2d(channels_in, width, kernel, padding=kernel // 2)
    return nn.Sequential(first, *(ResidualBlock(width, kernel) for _ in range(blocks)), nn.ReLU(), last)


def pooling_stages(channels: int, widths: Sequence[int], convolutions: int, *, partial: bool = False) -> list[nn.Module]:
    """Stages of 3x3 convolutions, batch norm and ReLU, the first of one convolution, with 2x2 max-pooling before each other one.

    Pooling leaves out a last odd row or column; with ``partial`` it keeps them, so that maps of any size have some left.
    """
    layers: list[nn.Module] = []
    for stage, width in enumerate(widths):
        if stage:
            layers.append(nn.MaxPool2d(2, ceil_mode=partial))
        for _ in range(convolutions if stage else 1):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return layers


@makes_vectors
def cnn(
    channels_in: int,
    channels_out: int,
    *,
    widths: Annotated[Sequence[PositiveInt], Len(1, 20)] = (32, 32, 64),
    convolutions: PositiveInt = 2,
    grid: PositiveInt = 1,
    hidden: NonNegativeInt = 0,
    dropout: Decay = 0.0,
) -> nn.Module:
    """A convolutional classifier, for a readout: the stages of ``plain_cnn``, average pooling to a grid, and linear layers.

    It does not start at zero.

    Args:
        channels_in: channels of the input (B, C, H, W).
        channels_out: numbers returned, (B, channels_out).
        widths: channels of each stage.
        convolutions: convolutions per stage; the first stage has one.
        grid: pixels per side of the averages; 1 for one average per channel.
        hidden: units of a hidden layer after the pooling; 0 for no such layer.
        dropout: fraction of activations dropped before each linear layer, in training.
    """
    stages = pooling_stages(channels_in, widths, convolutions, partial=True)
    layers = [*stages, nn.AdaptiveAvgPool2d(grid), nn.Flatten(), nn.Dropout(dropout)]
    size = widths[-1] * grid**2
    if hidden:
        layers += [nn.Linear(size, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout)]
        size = hidden
    return nn.Sequential(*layers, nn.Linear(size, channels_out))


def _check_odd(subnet: str, kernel: int) -> None:
    if kernel % 2 == 0:
        raise GraphError(f"subnet {subnet}: kernel must be odd, so that height and width stay; found {kernel}")
