"""The rational-quadratic spline: nflows' values, exact both ways, bounded, finite everywhere, the identity at first and outside."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nflows.transforms.splines import rational_quadratic_spline
from torch import Tensor

from flowclf.nodes import RationalQuadratic


def drawn(spline: RationalQuadratic, scale: float, entries: int = 40, batch: int = 20) -> tuple[Tensor, Tensor]:
    """Inputs on both sides of the bound, and parameters."""
    x = 1.5 * spline.bound * (2 * torch.rand(batch, entries, dtype=torch.float64) - 1)
    return x, scale * torch.randn(batch, entries * spline.parameters_per_entry, dtype=torch.float64)


@settings(max_examples=30)
@given(
    bins=st.sampled_from([1, 2, 3, 8, 20]),
    bound=st.floats(0.1, 20),
    scale=st.sampled_from([0.1, 1.0, 5.0, 100.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_both_ways_are_exact_whatever_the_parameters(bins: int, bound: float, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    spline = RationalQuadratic(bins=bins, bound=bound)
    x, parameters = drawn(spline, scale)
    z, log_det = spline(x, parameters, True)
    again, inverse_log_det = spline.inverse(z, parameters, True)
    source, _ = spline.inverse(x, parameters, True)
    back, _ = spline(source, parameters, True)
    assert (again - x).abs().max() <= 1e-9
    assert (back - x).abs().max() <= 1e-9
    assert log_det is not None
    assert inverse_log_det is not None
    assert log_det.isfinite().all()
    torch.testing.assert_close(inverse_log_det, -log_det, atol=1e-7, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_it_has_the_values_that_nflows_computes(scale: float) -> None:
    bins, bound, least = 5, 2.0, 1e-3
    spline = RationalQuadratic(bins=bins, bound=bound)
    parameters = scale * torch.randn(30, spline.parameters_per_entry, 4, dtype=torch.float64)
    x = 2 * bound * torch.rand(30, 4, dtype=torch.float64) - bound
    raw = parameters.movedim(1, -1)
    slopes = (spline.max_log_slope * torch.tanh(raw[..., 2 * bins :] / spline.max_log_slope)).exp()
    one = torch.ones(30, 4, 1, dtype=torch.float64)
    expected, log_abs_det = rational_quadratic_spline(
        x,
        raw[..., :bins],
        raw[..., bins : 2 * bins],
        (torch.cat((one, slopes, one), dim=-1) - least).expm1().log(),
        left=-bound,
        right=bound,
        bottom=-bound,
        top=bound,
        min_bin_width=spline.min_bin / bins,
        min_bin_height=spline.min_bin / bins,
        min_derivative=least,
    )
    z, log_det = spline(x, parameters.flatten(1), True)
    torch.testing.assert_close(z, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(log_det, log_abs_det.sum(1), atol=1e-8, rtol=0)
    assert (z - x).abs().max() > 0.1


def test_it_is_monotonic_and_its_slopes_are_bounded() -> None:
    spline = RationalQuadratic(bins=4, bound=1.0, max_log_slope=0.5)
    x = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    z, _ = spline(x[:, None], 100 * torch.randn(1, 11, dtype=torch.float64).expand(4001, -1), False)
    steps = z[:, 0].diff() / x.diff()
    # The steepest mean slope has the highest bin on the narrowest, and within a bin the slope is below twice that.
    steepest = (1 - 0.1 * 3 / 4) / (0.1 / 4)
    assert steps.min() > 0
    assert steps.max() < 2 * steepest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6,), (3, 4, 5)])
def test_it_is_the_identity_at_first(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    spline = RationalQuadratic()
    x = 3 * torch.randn(50, *shape, dtype=dtype)
    zeros = torch.zeros(50, shape[0] * spline.parameters_per_entry, *shape[1:], dtype=dtype)
    for direction in (spline, spline.inverse):
        z, log_det = direction(x, zeros, True)
        assert z.dtype == dtype
        torch.testing.assert_close(z, x, atol=8 * torch.finfo(dtype).eps, rtol=0)
        torch.testing.assert_close(log_det, torch.zeros(50, dtype=dtype), atol=300 * torch.finfo(dtype).eps, rtol=0)


def test_outside_of_its_bound_nothing_changes() -> None:
    spline = RationalQuadratic(bound=2.0)
    x, parameters = drawn(spline, 2.0)
    outside = x.abs() > 2
    for direction in (spline, spline.inverse):
        z, _ = direction(x, parameters, True)
        assert torch.equal(z[outside], x[outside])
        assert (z[~outside] - x[~outside]).abs().median() > 0.1
        assert (z[~outside].abs() <= 2 + 1e-12).all()
    only = torch.full((1, 40), 2.5, dtype=torch.float64)
    assert float(spline(only, parameters[:1], True)[1]) == 0.0


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_at_the_bound_at_the_ends_of_bins_and_far_away(scale: float) -> None:
    spline = RationalQuadratic(bins=4, bound=2.0)
    points = [-1e6, -2.0, -1.0, 0.0, 1.0, 2.0, 2.0000001, 1e6]
    x = torch.tensor([points], dtype=torch.float32, requires_grad=True)
    parameters = (scale * torch.randn(1, 8 * spline.parameters_per_entry)).requires_grad_()
    for direction in (spline, spline.inverse):
        z, log_det = direction(x, parameters, True)
        grads = torch.autograd.grad(z.sum() + log_det.sum(), (x, parameters))
        assert z.isfinite().all()
        assert all(grad.isfinite().all() for grad in grads)
        assert grads[0].ne(0).all()


@pytest.mark.parametrize("of_x", [torch.float32, torch.bfloat16])
def test_its_arithmetic_is_never_in_half_precision(of_x: torch.dtype) -> None:
    spline = RationalQuadratic()
    x, parameters = (value.to(torch.bfloat16) for value in drawn(spline, 1.0))
    expected, log_abs_det = spline(x.float(), parameters.float(), True)
    z, log_det = spline(x.to(of_x), parameters, True)
    assert z.dtype == of_x
    assert torch.equal(z, expected.to(of_x))
    assert log_det.dtype == torch.float32
    assert torch.equal(log_det, log_abs_det)
