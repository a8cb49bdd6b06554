"""Architectures of ordinary networks: functions that return a network factory for :class:`flowclf.classifier.PlainClassifier`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.argument_types import Decay, NonNegativeInt, PositiveInt
from flowclf.classifier import NetworkFactory
from flowclf.errors import UsageError
from flowclf.subnets import pooling_stages

_LARGEST = 2**16


class Binomial(nn.Module):
    """Filter for each channel of (B, C, H, W) maps: the outer product of (1, 2, 1) / 4 with itself, with replicated borders."""

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("weight", line.outer(line).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Filter feature maps; the shape stays the same."""
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), self.weight, groups=len(self.weight))


def plain_cnn(
    *,
    widths: Sequence[PositiveInt] = (16, 32, 64),
    convolutions: PositiveInt = 2,
    hidden: NonNegativeInt = 128,
    dropout: Decay = 0.4,
    smooth: bool = False,
) -> NetworkFactory:
    """Convolutional network with batch norm: stages of 3x3 convolutions, with 2x2 max-pooling between stages.

    Source: K. Simonyan and A. Zisserman, Very deep convolutional networks for large-scale image recognition, 2015.

    Args:
        widths: channels of each stage.
        convolutions: convolutions per stage; the first stage, at full resolution, has one.
        hidden: units of the hidden layer between the last feature maps and the logits; 0 for no such layer.
        dropout: fraction of activations dropped before each fully connected layer, in training.
        smooth: first apply a fixed 3x3 binomial filter, which removes patterns of period 2: artefacts of inverted squeezes.

    Raises:
        UsageError: if a number is out of range; and, when the network is built, if the inputs are not images or are too small.

    Example:
        >>> network = plain_cnn(widths=[4, 8], hidden=16)((1, 8, 8), 10)
        >>> [layer.out_channels for layer in network if isinstance(layer, nn.Conv2d)]
        [4, 8, 8]
    """
    stages = list(widths)
    for name, values in {"widths": stages, "convolutions": [convolutions], "hidden": [hidden or 1]}.items():
        if not values or not all(isinstance(value, int) and 1 <= value <= _LARGEST for value in values):
            raise UsageError(f"plain_cnn: {name}: expected integers from 1 to {_LARGEST}, found {values}")

    def build(input_shape: tuple[int, ...], classes: int) -> nn.Module:
        smallest = 2 ** (len(stages) - 1)
        if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
            raise UsageError(f"plain_cnn: expected images of at least {smallest} pixels per side, found {input_shape}")
        channels, height, width = input_shape
        layers: list[nn.Module] = [Binomial(channels)] if smooth else []
        layers += pooling_stages(channels, stages, convolutions)
        size = stages[-1] * (height // smallest) * (width // smallest)
        layers += [nn.Flatten(), nn.Dropout(dropout)]
        if hidden:
            layers += [nn.Linear(size, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(dropout)]
            size = hidden
        return nn.Sequential(*layers, nn.Linear(size, classes))

    return build
