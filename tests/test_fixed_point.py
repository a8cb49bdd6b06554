"""Arithmetic on the grid: sums without rounding, gradients straight through, magnitudes noted."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import on_grid

from flowclf.fixed_point import LIMIT, RESOLUTION, Peak, round_to_grid

steps = st.integers(-(2**23) + 1, 2**23 - 1)


@given(a=steps, b=steps)
def test_sums_and_differences_are_exact(a: int, b: int) -> None:
    x, y = torch.tensor([a, b], dtype=torch.float32) * RESOLUTION
    assert on_grid(torch.stack([x, y]))
    assert float(x + y) == (a + b) * RESOLUTION
    assert torch.equal((x + y) - y, x)


@given(value=st.floats(-200, 200, width=32))
def test_rounds_to_the_nearest(value: float) -> None:
    rounded = float(round_to_grid(torch.tensor(value)))
    assert (rounded / RESOLUTION).is_integer()
    assert abs(rounded - value) <= RESOLUTION / 2


def test_the_gradient_passes_straight_through() -> None:
    x = torch.randn(5, requires_grad=True)
    (round_to_grid(x) * torch.arange(5.0)).sum().backward()
    assert torch.equal(x.grad, torch.arange(5.0))


def test_a_peak_remembers_the_largest_magnitude_until_it_is_taken() -> None:
    peak = Peak()
    for values in ([1.0, -7.5], [3.0, 2.0], []):
        peak.see(torch.tensor(values))
    assert (peak.take(), peak.take()) == (7.5, 0.0)
    peak.see(torch.tensor([1.0, math.nan]))
    peak.see(torch.tensor([LIMIT]))
    assert math.isnan(peak.take())
