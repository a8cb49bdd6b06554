"""Gaussianization: the distribution of all entries together, quantiles, tails, and what stays a logit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowclf import build_classifier, load, save
from flowclf.data.mnist_bundled import mnist
from flowclf.errors import GraphError
from flowclf.nodes import Gaussianization, LogitGaussianization, initialize
from flowclf.nodes.gaussianization import quantile_spline
from flowclf.preprocessing import Preprocessing


def digits(count: int) -> torch.Tensor:
    images = mnist().train.inputs[:count]
    return Preprocessing((1, 28, 28), bits=4).dequantize(images, torch.Generator().manual_seed(0))


def test_pixels_of_digits_become_normally_distributed() -> None:
    x = digits(512)
    node = Gaussianization([(1, 28, 28)])
    initialize(node, x)
    (z,), log_det = node((digits(2000)[512:],))
    assert abs(z.mean().item()) < 0.02
    assert abs(z.std().item() - 1) < 0.02
    # Kolmogorov and Smirnov's distance from the normal distribution; that of the pixels, scaled, is 0.5.
    ordered = z.flatten().sort().values
    distance = (torch.special.ndtr(ordered) - torch.linspace(0, 1, len(ordered))).abs().max()
    assert distance < 0.02
    # Background: the 81 % of the pixels below 1/16 of the range have their share of the normal distribution.
    assert 0.75 < z[digits(2000)[512:] < -0.875].max() < 1
    assert log_det.shape == (1488,)


def test_is_the_identity_until_it_is_initialised_and_then_stays() -> None:
    node = Gaussianization([(5,)])
    x = 2 * torch.randn(64, 5)
    torch.testing.assert_close(node((x,))[0][0], x)
    initialize(node, torch.rand(64, 5))
    knots = node.knots.clone()
    initialize(node, x)
    node((x,))
    assert torch.equal(node.knots, knots)


def test_goes_on_in_a_line_beyond_the_quantiles() -> None:
    node = Gaussianization([(4,)]).double()
    initialize(node, torch.rand(1000, 4, dtype=torch.float64))
    x = torch.tensor([[-5.0, -4.0, 3.0, 4.0]], dtype=torch.float64)
    (z,), _ = node((x,))
    assert z[0, 1] - z[0, 0] == pytest.approx(float(node.slopes[0]))
    assert z[0, 3] - z[0, 2] == pytest.approx(float(node.slopes[-1]))
    torch.testing.assert_close(node((z,), rev=True)[0][0], x, atol=1e-12, rtol=0)


def test_inverts_in_32_bits() -> None:
    x = digits(256)
    node = Gaussianization([(1, 28, 28)])
    initialize(node, x)
    (z,), log_det = node((x,))
    (again,), inverse_log_det = node((z,), rev=True)
    assert (again - x).abs().max() < 2e-6
    torch.testing.assert_close(inverse_log_det, -log_det, atol=1e-3, rtol=1e-5)


def test_values_that_coincide_have_the_largest_slope() -> None:
    knots, slopes = quantile_spline(torch.full((100,), 3.0), torch.linspace(-1, 1, 5), max_slope=10.0)
    torch.testing.assert_close(knots, 3 + torch.tensor([0.0, 0.05, 0.1, 0.15, 0.2], dtype=torch.float64))
    torch.testing.assert_close(slopes, torch.full((5,), 10.0, dtype=torch.float64))


def test_a_single_value_is_enough() -> None:
    knots, _ = quantile_spline(torch.tensor([1.0]), torch.tensor([-1.0, 1.0]), max_slope=100.0)
    assert knots.tolist() == pytest.approx([1.0, 1.02])


def test_logits_are_neither_changed_nor_counted() -> None:
    node = LogitGaussianization([(1, 8, 8)], classes=3, squeezes=1)
    x = torch.rand(200, 1, 8, 8)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        x[:, 0, row, column] = 100.0
    initialize(node, x)
    assert node.knots.max() < 1.1
    (z,), _ = node((x,))
    assert torch.equal(node.space.read(z), torch.full((200, 3), 100.0))
    assert z[:, :, 4:, 4:].std() == pytest.approx(1, abs=0.05)


def test_nothing_but_logits_is_refused() -> None:
    with pytest.raises(GraphError, match=r"needs more than 4 logits, found shape \(4,\)"):
        LogitGaussianization([(4,)], classes=4)


def test_knots_are_saved(tmp_path: Path) -> None:
    nodes = ["squeeze", {"logit_gaussianization": {"bins": 6}}, {"split_head": {"dct": False}}]
    clf = build_classifier((1, 8, 8), nodes, classes=4)
    assert not clf.initialized
    x = torch.rand(100, 1, 8, 8) ** 2
    clf.initialize(x)
    clf.eval()
    again = load(save(clf, tmp_path))
    assert again.initialized
    assert all(map(torch.equal, again(x), clf(x)))
    assert again.log_prob(x).isfinite().all()
