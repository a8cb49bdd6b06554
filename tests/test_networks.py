"""Architectures of ordinary networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from flowclf import plain_classifier
from flowclf.errors import UsageError
from flowclf.networks import plain_cnn


@pytest.mark.parametrize("arguments", [{}, {"widths": [3], "hidden": 0}, {"widths": [2, 4], "convolutions": 1, "dropout": 0.0}])
def test_every_pixel_and_parameter_counts(arguments: dict[str, Any]) -> None:
    network = plain_cnn(**arguments)((2, 8, 10), 5).eval()
    x = torch.randn(3, 2, 8, 10, requires_grad=True)
    logits = network(x)
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert x.grad is not None
    assert (x.grad.abs().amax(dim=(0, 1)) > 0).float().mean() > 0.9


def test_stages_have_their_convolutions_and_widths() -> None:
    layers = list(plain_cnn(widths=[3, 5, 7], convolutions=3)((1, 16, 16), 2))  # type: ignore[call-overload]
    assert [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)] == [3, 5, 5, 5, 7, 7, 7]
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in layers) == 2


def test_vectors_and_images_too_small_are_refused() -> None:
    for shape in ((12,), (1, 3, 3)):
        with pytest.raises(UsageError, match=r"plain_cnn: expected images of at least 4 pixels a side, found \("):
            plain_classifier(shape, {"plain_cnn": {}}, classes=3)
