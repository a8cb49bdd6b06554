"""Architectures of ordinary networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from flowclf import plain_classifier
from flowclf.architectures.plain_cnn import Binomial, plain_cnn
from flowclf.errors import UsageError


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


def test_smoothing_is_blind_to_checkerboards_and_keeps_what_is_flat() -> None:
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    for pattern in ((-1.0) ** (rows + columns), (-1.0) ** rows, (-1.0) ** columns):
        assert Binomial(2)(pattern.expand(1, 2, 8, 8))[..., 1:-1, 1:-1].abs().max() < 1e-6
    flat = torch.rand(3, 2, 1, 1).expand(3, 2, 8, 8)
    torch.testing.assert_close(Binomial(2)(flat), flat)
    one, other = torch.zeros(2, 1, 2, 8, 8)
    one[0, 0, 4, 4] = 16
    assert Binomial(2)(one)[0, 0, 3:6, 3:6].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert torch.equal(Binomial(2)(one)[:, 1], Binomial(2)(other)[:, 1])
    assert isinstance(plain_cnn(smooth=True)((2, 8, 8), 3)[0], Binomial)  # type: ignore[index]


def test_stages_have_their_convolutions_and_widths() -> None:
    layers = list(plain_cnn(widths=[3, 5, 7], convolutions=3)((1, 16, 16), 2))  # type: ignore[call-overload]
    assert [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)] == [3, 5, 5, 5, 7, 7, 7]
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in layers) == 2


def test_vectors_and_images_too_small_are_refused() -> None:
    for shape in ((12,), (1, 3, 3)):
        with pytest.raises(UsageError, match=r"plain_cnn: expected images of at least 4 pixels per side, found \("):
            plain_classifier(shape, {"plain_cnn": {}}, classes=3)
