"""Space to channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import BijectiveNode, Shape, Shapes


def space_to_channels(x: Tensor, factor: int) -> Tensor:
    """Rearrange (B, C, H, W) as (B, C f^2, H/f, W/f), see :class:`Squeeze`."""
    if not x.shape[0]:
        # torch leaves the shape of an empty batch as it is.
        return x.reshape(0, x.shape[1] * factor**2, x.shape[2] // factor, x.shape[3] // factor)
    return functional.pixel_unshuffle(x, factor)


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
            raise GraphError(f"Squeeze needs feature maps (C, H, W) with H and W divisible by {self.factor}, found {shape}")
        channels, height, width = shape
        return channels * self.factor**2, height // self.factor, width // self.factor

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Space to channels."""
        return space_to_channels(x, self.factor), None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Channels to space."""
        # As in space_to_channels.
        return functional.pixel_shuffle(z, self.factor) if z.shape[0] else z.reshape(0, *self.shape), None
