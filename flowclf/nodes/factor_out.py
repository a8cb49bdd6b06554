"""Part of the channels leaves the stream early."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from flowclf.argument_types import PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import FlowNode, Shape, Shapes, single_shape


class FactorOut(FlowNode):
    """Split the channels in two outputs: those that go on, and those that leave (Dinh et al., Real NVP, 2017, section 3.6).

    In a list of node specs the second output goes to the :class:`SplitHead`; in a FrEIA graph, connect it yourself.

    Args:
        keep: number of channels that go on; by default the larger half.

    Raises:
        GraphError: if there are fewer than two channels, or ``keep`` is not below their number.

    Example:
        >>> FactorOut([(16, 7, 7)]).output_dims([(16, 7, 7)])
        [(8, 7, 7), (8, 7, 7)]
    """

    exact_inverse = True
    keeps_grid = True
    branches = True

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, keep: PositiveInt | None = None) -> None:
        shape = single_shape(dims_in, "FactorOut")
        super().__init__([shape], list(dims_c or []))
        channels = shape[0]
        self.keep = channels - channels // 2 if keep is None else keep
        if not 0 < self.keep < channels:
            raise GraphError(f"FactorOut must keep at least 1 and fewer than all of {channels} channels of {shape}, found {keep}")

    def forward(
        self, x_or_z: Iterable[Tensor], c: Iterable[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """One tensor to two, or with ``rev`` two to one."""
        values = tuple(x_or_z)
        log_det = values[0].new_zeros(values[0].shape[0])
        if rev:
            return (torch.cat(values, dim=1),), log_det
        (x,) = values
        return (x[:, : self.keep], x[:, self.keep :]), log_det

    def output_dims(self, input_dims: Shapes) -> list[Shape]:
        """FrEIA's shape inference."""
        channels, *size = single_shape(input_dims, "FactorOut")
        return [(self.keep, *size), (channels - self.keep, *size)]
