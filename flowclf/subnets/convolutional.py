"""Convolutional subnets for feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor, nn
from torch.nn import functional

from flowclf.argument_types import Decay, NonNegativeInt, PositiveInt
from flowclf.errors import GraphError
from flowclf.subnets.bf16_bottleneck import bottleneck, is_fast
from flowclf.subnets.building import starts_at_zero, takes_maps


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
    convolves_faster = x.device.type == "cpu" and "AVX512" in torch.backends.cpu.get_cpu_capability()
    if convolves_faster and x.dtype in (torch.float32, torch.bfloat16):
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
                    return bottleneck(x, first.weight, hidden.weight, last.weight, (first.bias, hidden.bias, last.bias))
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


def pooling_stages(channels: int, widths: Sequence[int], convolutions: int, pools: int | None = None) -> list[nn.Module]:
    """Stages of 3x3 convolutions, batch norm and ReLU; the first has one convolution.

    2x2 max-pooling precedes each stage but the first, or the first ``pools`` of these.
    """
    layers: list[nn.Module] = []
    for stage, width in enumerate(widths):
        if stage and (pools is None or stage <= pools):
            layers.append(nn.MaxPool2d(2))
        for _ in range(convolutions if stage else 1):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return layers


class Centred(nn.Module):
    """Subtracts each channel's mean over its pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """Centre feature maps (B, C, H, W)."""
        return x - x.mean((2, 3), keepdim=True)


@takes_maps
def pooling(
    channels_in: int,
    channels_out: int,
    *,
    widths: Annotated[Sequence[PositiveInt], Len(1, 20)] = (16, 32),
    convolutions: PositiveInt = 2,
    dropout: Decay = 0.0,
) -> nn.Module:
    """The convolutional stages of ``plain_cnn`` on squeezed images: squeezes are undone first, and pooled again between stages.

    In a ``logit_readout`` right after the squeezes it reads an image as an ordinary classifier does. It does not start at zero. As
    many squeezes by 2 are undone as there are ``widths``, or fewer if the number of channels does not allow more. The means of all
    channels are subtracted, because a readout subtracts those of the first channels, which would leave a pattern in the image.

    Args:
        channels_in: channels of the input (B, C, H, W).
        channels_out: channels of the last stage, and of the output; height and width stay.
        widths: channels of the stages before it.
        convolutions: convolutions per stage; the first stage has one.
        dropout: fraction of the output dropped in training.
    """
    undone = 0
    while undone < len(widths) and channels_in % 4 ** (undone + 1) == 0:
        undone += 1
    unsqueezed = [nn.PixelShuffle(2) for _ in range(undone)]
    stages = pooling_stages(channels_in // 4**undone, [*widths, channels_out], convolutions, pools=undone)
    return nn.Sequential(Centred(), *unsqueezed, *stages, nn.Dropout(dropout))


def _check_odd(subnet: str, kernel: int) -> None:
    if kernel % 2 == 0:
        raise GraphError(f"subnet {subnet}: kernel must be odd, so that height and width stay; found {kernel}")
