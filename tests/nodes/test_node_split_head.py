"""SplitHead: nothing is lost, the order is the documented one, nuisances go back to maps."""

from __future__ import annotations

import itertools
import math

import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from node_cases import Shape, head_shapes
from torch import Tensor

from flowclf.errors import GraphError
from flowclf.nodes import SplitHead


def places(height: int, width: int) -> list[tuple[int, int]]:
    """Positions by u + v, then by u."""
    return [(u, total - u) for total in range(height + width - 1) for u in range(height) if 0 <= total - u < width]


def expected_order(coefficients: Tensor) -> Tensor:
    """All channels of the first position, then of the next, written out."""
    _, channels, height, width = coefficients.shape
    columns = [coefficients[:, c, u, v] for (u, v), c in itertools.product(places(height, width), range(channels))]
    return torch.stack(columns, dim=1)


@settings(max_examples=30)
@given(shapes=head_shapes(), classes=st.integers(2, 4), seed=st.integers(0, 1000))
def test_without_dct_it_splits_and_joins_bit_for_bit(shapes: list[Shape], classes: int, seed: int) -> None:
    torch.manual_seed(seed)
    values = tuple(torch.randn(2, *shape) for shape in shapes)
    head = SplitHead(shapes, classes=min(classes, math.prod(shapes[0]) - 1), dct=False)
    (logits, nuisance), log_det = head(values)
    again, _ = head((logits, nuisance), rev=True)
    assert all(map(torch.equal, again, values))
    order = torch.cat([expected_order(values[0]), *(part.flatten(1) for part in values[1:])], dim=1)
    assert torch.equal(torch.cat((logits, nuisance), dim=1), order)
    assert torch.equal(log_det, torch.zeros(2))


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2), (2, 5, 3), (16, 7, 7)])
@pytest.mark.parametrize("classes", [2, 3, 7, 10])
def test_logits_are_the_lowest_frequencies_in_the_documented_order(shape: Shape, classes: int) -> None:
    x = torch.randn(2, *shape, dtype=torch.float64)
    head = SplitHead([shape], classes=classes, logit_scale=3.0).double()
    (logits, nuisance), log_det = head((x,))
    frequencies = expected_order(torch.from_numpy(scipy.fft.dctn(x.numpy(), type=2, norm="ortho", axes=(-2, -1))))
    torch.testing.assert_close(logits, 3 * frequencies[:, :classes], atol=1e-12, rtol=0)
    torch.testing.assert_close(nuisance, frequencies[:, classes:], atol=1e-12, rtol=0)
    torch.testing.assert_close(log_det, torch.full((2,), classes * math.log(3.0), dtype=torch.float64))


def test_with_enough_channels_the_logits_are_means() -> None:
    x = torch.randn(4, 12, 7, 7)
    (logits, _), _ = SplitHead([(12, 7, 7)], classes=10)((x,))
    torch.testing.assert_close(logits, 7 * x[:, :10].mean((2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.25, 1.0, 5.0])
def test_the_logit_scale_multiplies_the_logits_alone(scale: float) -> None:
    x = torch.randn(2, 6)
    head = SplitHead([(6,)], classes=4, logit_scale=scale)
    (logits, nuisance), log_det = head((x,))
    torch.testing.assert_close(logits, scale * x[:, :4])
    assert torch.equal(nuisance, x[:, 4:])
    torch.testing.assert_close(log_det, torch.full((2,), 4 * math.log(scale)))
    _, inverse_log_det = head((logits, nuisance), rev=True)
    assert torch.equal(inverse_log_det, -log_det)


@settings(max_examples=20)
@given(shapes=head_shapes(), dct=st.booleans(), seed=st.integers(0, 1000))
def test_nuisance_maps_join_back(shapes: list[Shape], dct: bool, seed: int) -> None:
    """The last map lacks what the logits say, and nothing else; the parts are the parts."""
    torch.manual_seed(seed)
    values = tuple(torch.randn(2, *shape, dtype=torch.float64) for shape in shapes)
    head = SplitHead(shapes, classes=3, dct=dct, logit_scale=2.0)
    (logits, nuisance), _ = head(values)
    maps = head.nuisance_maps(nuisance)
    assert [tuple(value.shape[1:]) for value in maps] == shapes
    assert all(map(torch.equal, maps[1:], values[1:]))
    (logits_of_maps, nuisance_of_maps), _ = head(maps)
    torch.testing.assert_close(logits_of_maps, torch.zeros_like(logits), atol=1e-12, rtol=0)
    torch.testing.assert_close(nuisance_of_maps, nuisance, atol=1e-12, rtol=0)
    (of_logits, *_), _ = head((logits, torch.zeros_like(nuisance)), rev=True)
    torch.testing.assert_close(maps[0] + of_logits, values[0], atol=1e-12, rtol=0)


def test_the_prior_mean_defaults_to_the_square_of_the_scale() -> None:
    assert SplitHead([(6,)], classes=2, logit_scale=3.0).logit_mean == 9.0
    assert SplitHead([(6,)], classes=2, logit_scale=3.0, logit_mean=4.0).logit_mean == 4.0


@pytest.mark.parametrize(
    ("shapes", "arguments", "words"),
    [
        ([(4, 1, 1)], {"classes": 5}, ["(4, 1, 1)", "5 classes"]),
        ([(4, 1, 1), (9, 2, 2)], {"classes": 5}, ["(4, 1, 1)", "5 classes"]),
        ([(4,)], {"classes": 4}, ["(4,)", "4 classes"]),
        ([(4,)], {"classes": 1}, ["at least 2"]),
        ([(4,)], {"classes": 2.0}, ["2.0"]),
        ([(4, 4)], {"classes": 2}, ["(4, 4)"]),
        ([], {"classes": 2}, ["first"]),
        ([(4,)], {"classes": 2, "dims_c": [(3,)]}, ["conditions", "(3,)"]),
    ],
)
def test_heads_that_cannot_be_are_refused(shapes: list[Shape], arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(GraphError) as caught:
        SplitHead(shapes, **arguments)
    assert all(word in str(caught.value) for word in words)


def test_coefficients_in_eval_mode_lose_no_more_than_rounding() -> None:
    torch.manual_seed(0)
    head = SplitHead([(6, 7, 5)], classes=3)
    x = 30 * torch.randn(4, 6, 7, 5)
    exact, _ = head((x.double(),))
    exact_maps, _ = head(exact, rev=True)
    trained, _ = head((x,))
    assert not torch.equal(trained[1], exact[1].float())
    head.eval()
    found, _ = head((x,))
    assert all(torch.equal(one, other.float()) for one, other in zip(found, exact, strict=True))
    (maps,), _ = head(tuple(value.float() for value in exact), rev=True)
    assert (maps - exact_maps[0]).abs().max() < 3e-6
