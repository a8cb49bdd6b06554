"""The convolutional stages that read squeezed images: they see the image itself, also in a readout right after the squeezes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowclf import build_classifier
from flowclf.architectures.plain_cnn import plain_cnn
from flowclf.nodes import Squeeze
from flowclf.subnets import build_subnet


def squeezed(x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        ((x,), _) = Squeeze([tuple(x.shape[1:])])((x,))
    return x


@pytest.mark.parametrize(
    ("shape", "times", "undone"),
    [((3, 32, 32), 2, 2), ((1, 8, 8), 2, 2), ((3, 16, 24), 3, 2), ((3, 8, 8), 1, 1), ((5, 4, 4), 0, 0)],
)
def test_squeezes_are_undone_and_pooled_again(shape: tuple[int, int, int], times: int, undone: int) -> None:
    image = torch.randn(2, *shape)
    maps = squeezed(image, times)
    net = build_subnet({"pooling": {"widths": [4, 6]}}, maps.shape[1], 7, spatial=True)
    assert net(maps).shape == (2, 7, *maps.shape[2:])
    layers = list(net)
    assert [type(layer) for layer in layers[1 : 1 + undone]] == [nn.PixelShuffle] * undone
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in layers) == undone
    restored = nn.Sequential(*layers[1 : 1 + undone])(maps)
    assert torch.equal(restored, squeezed(image, times - undone))
    net.eval()
    torch.testing.assert_close(net(maps + torch.randn(2, maps.shape[1], 1, 1)), net(maps), atol=1e-5, rtol=1e-5)


def test_it_has_the_stages_of_the_plain_network() -> None:
    plain = [layer for layer in plain_cnn(widths=[4, 8], hidden=0)((3, 8, 8), 10) if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    net = build_subnet({"pooling": {"widths": [4]}}, 12, 8, spatial=True)
    assert str(plain) == str([layer for layer in net if isinstance(layer, nn.Conv2d | nn.MaxPool2d)])


def test_a_classifier_that_reads_first_inverts() -> None:
    readout = {
        "logit_readout": {"subnet": {"pooling": {"widths": [4, 8], "dropout": 0.3}}, "features": 4, "hidden": 6, "dropout": 0.3}
    }
    clf = build_classifier((3, 8, 8), ["squeeze", "squeeze", readout, "logit_coupling", "split_head"], classes=4)
    for parameter in clf.parameters():
        nn.init.normal_(parameter, std=0.1)
    clf(torch.randn(16, 3, 8, 8))
    clf.eval()
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(clf.inverse(*clf(x)[:2]), x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(clf(x).logits[:1], clf(x[:1]).logits, atol=1e-5, rtol=1e-5)
