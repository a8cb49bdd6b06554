"""Fixed mixing of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowclf.argument_types import NonNegativeInt
from flowclf.nodes.base import BijectiveNode, Shapes
from flowclf.nodes.gradients import BackwardStep


class Permutation(BijectiveNode):
    """A fixed random permutation of the channels, kept in a buffer; log-determinant 0.

    Args:
        seed: random seed for the permutation; by default it is drawn from torch's global generator.

    Example:
        >>> node = Permutation([(4,)], seed=0)
        >>> (z,), _ = node((torch.tensor([[0.0, 1.0, 2.0, 3.0]]),))
        >>> sorted(z[0].tolist())
        [0.0, 1.0, 2.0, 3.0]
    """

    exact_inverse = True
    keeps_grid = True

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, seed: NonNegativeInt | None = None) -> None:
        super().__init__(dims_in, dims_c)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.register_buffer("permutation", torch.randperm(self.shape[0], generator=generator))

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Channel ``permutation[i]`` becomes channel i."""
        return _permute(x, self.permutation, self.permutation.argsort()), None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Each channel goes back."""
        return _permute(z, self.permutation.argsort(), self.permutation), None

    def backward_step(
        self, z: Tensor, conditions: Sequence[Tensor], grad_z: Tensor, grad_log_det: Tensor | None, parameters: Sequence[Tensor]
    ) -> BackwardStep:
        """Input and gradients from the output, see :mod:`flowclf.nodes.gradients`."""
        with torch.no_grad():
            x, grad_x = (self.invert(value, conditions, False)[0] for value in (z, grad_z))
        return BackwardStep(x, grad_x, (None,) * len(conditions), (None,) * len(parameters))


def _permute(x: Tensor, order: Tensor, back: Tensor) -> Tensor:
    return _Permute.apply(x, order, back)  # type: ignore[no-untyped-call,no-any-return]


class _Permute(torch.autograd.Function):
    """Selection whose gradient is a selection too; the gradient of an index is a sum over all places, many times slower."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(order, back)
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            # torch selects columns of a matrix three times as fast as those of a tensor with more dimensions.
            pixels = x.permute(0, 2, 3, 1)
            return pixels.flatten(0, 2).index_select(1, order).view(pixels.shape).permute(0, 3, 1, 2)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, back = ctx.saved_tensors
        return _permute(grad, back, order), None, None
