"""Nodes of a multi-scale architecture: squeezing, and factoring out channels (Dinh et al., Real NVP, 2017, section 3.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import BijectiveNode, FlowNode, Shape, Shapes, single_shape


class Squeeze(BijectiveNode):
    """(C, H, W) -> (C f^2, H/f, W/f), a permutation of the entries (Dinh et al., Real NVP, 2017, section 3.6).

    Channel c f^2 + f i + j of the output is pixel (i, j) of each f x f patch of channel c.

    Args:
        factor: f.

    Raises:
        GraphError: if the input is a vector, or ``factor`` does not divide the height and the width.

    Example:
        >>> Squeeze([(1, 28, 28)]).output_dims([(1, 28, 28)])
        [(4, 14, 14)]
    """

    exact_inverse = True
    keeps_grid = True

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, factor: PositiveInt = 2) -> None:
        super().__init__(dims_in, dims_c)
        self.factor = factor
        self.output_shape(self.shape)

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of ``shape``."""
        if len(shape) != 3 or shape[1] % self.factor or shape[2] % self.factor:
            raise GraphError(
                f"Squeeze needs feature maps (C, H, W) with H and W divisible by {self.factor}, found {shape}; padding may help"
            )
        channels, height, width = shape
        return channels * self.factor**2, height // self.factor, width // self.factor

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Space to channels."""
        return functional.pixel_unshuffle(x, self.factor), None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Channels to space."""
        return functional.pixel_shuffle(z, self.factor), None


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
        log_det = values[0].new_zeros(len(values[0]))
        if rev:
            return (torch.cat(values, dim=1),), log_det
        (x,) = values
        return (x[:, : self.keep], x[:, self.keep :]), log_det

    def output_dims(self, input_dims: Shapes) -> list[Shape]:
        """FrEIA's shape inference."""
        channels, *size = single_shape(input_dims, "FactorOut")
        return [(self.keep, *size), (channels - self.keep, *size)]
