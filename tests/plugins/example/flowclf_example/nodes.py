"""A node that branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flowclf.nodes import FlowNode


class EvenOdd(FlowNode):
    """Even channels go on, odd ones leave the stream."""

    exact_inverse = True
    branches = True

    def forward(
        self, x_or_z: Iterable[Tensor], c: Iterable[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Split, or with ``rev`` interleave."""
        values = tuple(x_or_z)
        outputs = (torch.stack(values, 2).flatten(1, 2),) if rev else (values[0][:, ::2], values[0][:, 1::2])
        return outputs, values[0].new_zeros(len(values[0]))

    def output_dims(self, input_dims: Iterable[Sequence[int]]) -> list[tuple[int, ...]]:
        """Half of the channels each."""
        ((channels, *size),) = input_dims
        return [(channels // 2, *size)] * 2
