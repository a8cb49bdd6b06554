"""Numbers on a grid: multiples of 2^-16 below 2^7 in magnitude, whose sums float32 holds without rounding.

A network that only permutes such numbers and adds such numbers to them can be undone bit for bit, at any depth, whatever the
precision in which it computes *what* it adds. Only the arithmetic belongs here; which graphs keep to the grid is the business
of :mod:`flowclf.stream`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["LIMIT", "RESOLUTION", "Peak", "on_grid", "round_to_grid"]

RESOLUTION = 2.0**-16
"""Distance of two neighbours on the grid."""

LIMIT = 2.0**7
"""The grid's numbers are smaller in magnitude. The sum of two is below 2^8, and has 24 bits: float32 holds it exactly."""


def round_to_grid(values: Tensor) -> Tensor:
    """The nearest multiples of the resolution; the gradient passes straight through.

    Args:
        values: float32 or float64, of any shape. Nothing is clipped to :data:`LIMIT`: a :class:`Peak` tells.

    Example:
        >>> round_to_grid(torch.tensor([0.1, 1.0])) * 2**16
        tensor([ 6554., 65536.])
    """
    return _Round.apply(values)  # type: ignore[no-untyped-call,no-any-return]


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.div(RESOLUTION).round_().mul_(RESOLUTION)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def on_grid(values: Tensor) -> bool:
    """Whether all values are on the grid.

    Example:
        >>> on_grid(torch.tensor([0.5, -3.0])), on_grid(torch.tensor([0.1])), on_grid(torch.tensor([128.0]))
        (True, False, False)
    """
    return bool((values.abs() < LIMIT).all()) and torch.equal(round_to_grid(values), values)


class Peak:
    """The largest magnitude met so far, kept on the device: only :meth:`take` waits for it.

    Example:
        >>> peak = Peak()
        >>> peak.see(torch.tensor([0.5, -3.0]))
        >>> peak.take(), peak.take()
        (3.0, 0.0)
    """

    def __init__(self) -> None:
        self._largest: Tensor | None = None

    @torch.no_grad()
    def see(self, values: Tensor) -> None:
        """Take values in; NaN counts as larger than any number."""
        if not values.numel():
            return
        low, high = torch.aminmax(values)
        largest = torch.maximum(-low, high)
        self._largest = largest if self._largest is None else torch.maximum(self._largest.to(largest), largest)

    def take(self) -> float:
        """The largest magnitude since the last call; 0 if there was none."""
        largest, self._largest = self._largest, None
        return 0.0 if largest is None else float(largest)
