"""Numbers on a grid: multiples of 2^-16 below 2^7 in magnitude, whose sums float32 holds without rounding.

A network that only permutes such numbers and adds such numbers to them can be undone bit for bit, at any depth, whatever the precision
in which it computes *what* it adds. It must compute the same thing again, though, on the way back: with the same batch shape, on
the same device and kernels, with the same number of threads, and with batch norm and dropout in the same mode. With another
batch shape a subnet may round differently, rarely, and an error of one grid step then spreads.

Only the arithmetic belongs here; which nodes keep to the grid they say themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["LIMIT", "RESOLUTION", "on_grid", "round_to_grid"]

RESOLUTION = 2.0**-16
"""Distance of two neighbours on the grid."""

LIMIT = 2.0**7
"""The grid's numbers are smaller in magnitude. The sum of two is below 2^8, and has 24 bits: float32 holds it exactly."""


def round_to_grid(values: Tensor) -> Tensor:
    """The nearest numbers on the grid; the gradient passes straight through.

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
