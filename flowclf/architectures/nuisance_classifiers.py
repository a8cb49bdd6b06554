"""Networks that classify nuisances: adversaries in training and probes in evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flowclf.errors import UsageError
from flowclf.nodes.squeeze import space_to_channels

if TYPE_CHECKING:
    from flowclf.classifier import InvertibleClassifier


def mlp(dimensions: int, classes: int, hidden: Sequence[int] = (512, 512, 512), dropout: float = 0.0) -> nn.Sequential:
    """Fully connected ReLU network from features (B, ``dimensions``) to logits (B, ``classes``); by default the paper's (B.2).

    A fraction ``dropout`` of the hidden units is dropped in training.
    """
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(dimensions, units), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        dimensions = units
    return nn.Sequential(*layers, nn.Linear(dimensions, classes))


def widened(units: int, size: float) -> int:
    """Units of a hidden layer in a network that has about ``size`` times the parameters; from 64 on, a multiple of 8.

    Example:
        >>> widened(512, 2), widened(512, 4), widened(10, 2), widened(7, 1)
        (728, 1024, 14, 7)
    """
    if size == 1:
        return units
    exact = units * math.sqrt(size)
    return 8 * round(exact / 8) if exact >= 64 else round(exact)


def convolutions(channels: int, width: int) -> list[nn.Module]:
    """Three convolutions with batch norm and ReLU, (B, ``channels``, H, W) -> (B, ``width``, H, W)."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return layers


def residual_blocks(channels: int, width: int) -> list[nn.Module]:
    """A convolution and two residual blocks with batch norm, (B, ``channels``, H, W) -> (B, ``width``, H, W)."""
    stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return [stem, NormalizedResidualBlock(width), NormalizedResidualBlock(width), nn.BatchNorm2d(width), nn.ReLU()]


class NormalizedResidualBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), (B, ``width``, H, W).

    Source: K. He et al., Identity mappings in deep residual networks, 2016, Figure 1 (b).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, ``width``, H, W) from the same shape."""
        changed: Tensor = self.layers(x)
        return x + changed


class ConvolutionalProbe(nn.Module):
    """A small convolutional network on standardised nuisances (B, D-K) as feature maps.

    The feature maps are rearranged to the lowest resolution among them, pixels into channels, and concatenated.

    Args:
        clf: the classifier whose ``nuisance_maps`` are used; it does not become a submodule.
        classes: K, the number of classes.
        width: channels of the hidden layers.
        hidden: units of the fully connected hidden layer.
        trunk: makes the layers before it, from their channels of input and of output; each keeps height and width.

    Raises:
        UsageError: if the nuisances are not feature maps whose heights and widths are whole multiples of the smallest.
    """

    def __init__(
        self,
        clf: InvertibleClassifier,
        classes: int,
        width: int = 64,
        hidden: int = 256,
        trunk: Callable[[int, int], list[nn.Module]] = convolutions,
    ) -> None:
        super().__init__()
        self._maps_of: Callable[[Tensor], list[Tensor]] = clf.nuisance_maps
        with torch.no_grad():
            example = self.rearranged(torch.zeros(1, clf.dimensions - clf.classes, device=clf.device))
        layers = trunk(example.shape[1], width)
        grid = example.shape[2] * example.shape[3]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * grid, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def rearranged(self, nuisance: Tensor) -> Tensor:
        """Rearrange all nuisances into one feature map (B, C, H, W)."""
        maps = self._maps_of(nuisance)
        shapes = [tuple(part.shape[1:]) for part in maps]
        if any(len(shape) != 3 for shape in shapes):
            raise UsageError(f"a convolutional probe needs feature maps (C, H, W), found {shapes}")
        height, width = min(shape[1] for shape in shapes), min(shape[2] for shape in shapes)
        factors = [shape[1] // height for shape in shapes]
        if any(shape[1:] != (height * f, width * f) for shape, f in zip(shapes, factors, strict=True)):
            raise UsageError(f"a convolutional probe needs whole multiples of {height}x{width} pixels, found {shapes}")
        return torch.cat([space_to_channels(part, f) for part, f in zip(maps, factors, strict=True)], dim=1)

    def forward(self, nuisance: Tensor) -> Tensor:
        """Compute logits (B, K) from nuisances (B, D-K)."""
        logits: Tensor = self.layers(self.rearranged(nuisance))
        return logits
