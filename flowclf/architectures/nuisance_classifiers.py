"""Networks that classify nuisances: adversaries in training and probes in evaluation.

One is the paper's, on vectors; the other is convolutional, on feature maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.errors import UsageError

if TYPE_CHECKING:
    from flowclf.classifier import InvertibleClassifier


def mlp(dimensions: int, classes: int, hidden: Sequence[int] = (512, 512, 512)) -> nn.Sequential:
    """The paper's nuisance classifier (appendix B.2): fully connected ReLU layers, by default three of 512 units.

    Args:
        dimensions: D, the number of features.
        classes: K, the number of classes.
        hidden: units of each hidden layer.
    """
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(dimensions, units), nn.ReLU()]
        dimensions = units
    return nn.Sequential(*layers, nn.Linear(dimensions, classes))


class ConvolutionalProbe(nn.Module):
    """A small convolutional network on the nuisances as feature maps.

    Feature maps are rearranged to the lowest resolution among them, pixels into channels, which loses nothing, and concatenated.
    The input is standardised nuisances (B, D-K).

    Args:
        clf: the classifier whose ``nuisance_maps`` are used; it does not become a submodule.
        classes: K, the number of classes.
        width: channels of the hidden layers.

    Raises:
        UsageError: if the nuisances are not feature maps whose heights and widths are whole multiples of the smallest.
    """

    def __init__(self, clf: InvertibleClassifier, classes: int, width: int = 64) -> None:
        super().__init__()
        self._maps_of: Callable[[Tensor], list[Tensor]] = clf.nuisance_maps
        with torch.no_grad():
            example = self.rearranged(torch.zeros(1, clf.dimensions - clf.classes, device=clf.device))
        layers: list[nn.Module] = []
        channels = example.shape[1]
        for _ in range(3):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        grid = example.shape[2] * example.shape[3]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * grid, 256), nn.ReLU(), nn.Linear(256, classes))

    def rearranged(self, nuisance: Tensor) -> Tensor:
        """Rearrange all nuisances into one feature map (B, C, H, W)."""
        maps = self._maps_of(nuisance)
        shapes = [tuple(part.shape[1:]) for part in maps]
        if any(len(shape) != 3 for shape in shapes):
            raise UsageError(f"a convolutional probe needs feature maps (C, H, W), found {shapes}")
        height, width = min(part.shape[2] for part in maps), min(part.shape[3] for part in maps)
        factors = [part.shape[2] // height for part in maps]
        if any(tuple(part.shape[2:]) != (height * f, width * f) for part, f in zip(maps, factors, strict=True)):
            raise UsageError(f"a convolutional probe needs whole multiples of {height}x{width} pixels, found {shapes}")
        return torch.cat([functional.pixel_unshuffle(part, f) for part, f in zip(maps, factors, strict=True)], dim=1)

    def forward(self, nuisance: Tensor) -> Tensor:
        """Compute logits (B, K) from nuisances (B, D-K)."""
        logits: Tensor = self.layers(self.rearranged(nuisance))
        return logits
