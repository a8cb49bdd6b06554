"""Fixed-point arithmetic: multiples of 2^-16 below 2^7 in magnitude, whose sums are exact in float32.

A network that only permutes and adds such numbers can be inverted bit for bit, at any depth: :mod:`flowclf.graph.stream` says which
graphs, :mod:`flowclf.nodes.conditional` rounds shifts, and :mod:`flowclf.classifier.invertible` rounds inputs and latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowclf.modes import is_traced

RESOLUTION = 2.0**-16
"""Distance between neighbouring numbers on the grid."""

LIMIT = 2.0**7
"""Bound on the magnitude of numbers on the grid. The sum of two is below 2^8 and has 24 bits: it is exact in float32."""


def round_to_grid(values: Tensor) -> Tensor:
    """Round float32 or float64 values to the nearest multiples of the resolution, with a straight-through gradient.

    They are not clipped to :data:`LIMIT`; a :class:`Peak` detects overflow.

    Example:
        >>> round_to_grid(torch.tensor([0.1, 1.0])) * 2**16
        tensor([ 6554., 65536.])
    """
    return _Round.apply(values)  # type: ignore[no-untyped-call,no-any-return]


class _Round(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.div(RESOLUTION).round_().mul_(RESOLUTION)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is saved: the gradient passes straight through."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Peak:
    """Running maximum of magnitudes, kept on the device: only :meth:`take` waits for it.

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
        """Include values; NaN counts as larger than any number."""
        if not values.numel() or is_traced():
            return
        low, high = torch.aminmax(values)
        largest = torch.maximum(-low, high)
        self._largest = largest if self._largest is None else torch.maximum(self._largest.to(largest), largest)

    def take(self) -> float:
        """Return the largest magnitude since the last call, 0 if there was none, and reset it."""
        largest, self._largest = self._largest, None
        return 0.0 if largest is None else float(largest)
