"""Room in both directions for the pixels that the head reads as logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import NonNegativeInt
from flowclf.errors import GraphError
from flowclf.nodes.base import BijectiveNode, LogitPlace, Shapes
from flowclf.nodes.logit_space import logit_space


class LogitFold(BijectiveNode):
    """(a, b) -> (a - b, min(a, b)): pixels a that become logits, and as many at the opposite corner, b.

    Pixels have a range, and many images have black margins. A readout that adds to the logits then leaves a metamer no room: where
    a logit is lower than what the readout adds, a pixel would have to be darker than black, and clipping changes the prediction.
    After this node a logit is a difference of two pixels, of which one is raised for a larger logit and the other for a smaller
    one. The map is linear on both sides of a = b, with determinants of absolute value 1.

    Args:
        classes: K.
        squeezes: number of squeezes by 2 between this node and the head, which has ``dct=False``.

    Raises:
        GraphError: if the input is not feature maps, or its corners overlap; or the head would have fewer channels than classes.

    Example:
        >>> node = LogitFold([(1, 4, 4)], classes=1)
        >>> x = torch.zeros(1, 1, 4, 4)
        >>> x[0, 0, 3, 3] = 0.75
        >>> (z,), _ = node((x,))
        >>> float(z[0, 0, 0, 0]), float(z[0, 0, 3, 3])
        (-0.75, 0.0)
    """

    exact_inverse = True

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, classes: int, squeezes: NonNegativeInt = 0) -> None:
        super().__init__(dims_in, dims_c)
        self.space = logit_space(dims_in, LogitPlace(classes, dct=False, squeezes=squeezes), "LogitFold")
        side = self.space.side
        if len(self.shape) != 3 or min(self.shape[1:]) < 2 * side:
            raise GraphError(f"LogitFold needs feature maps (C, H, W), H and W at least {2 * side}, found shape {self.shape}")

    def _pixels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values at the corner of the logits and at the opposite one, (B, K) each."""
        return self.space.read(x), self.space.read(x.flip(2, 3))

    def _with_pixels(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return self.space.write(self.space.write(x, first).flip(2, 3), second).flip(2, 3)

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Difference and minimum."""
        a, b = self._pixels(x)
        return self._with_pixels(x, a - b, torch.minimum(a, b)), None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Add the difference to one of the two."""
        difference, least = self._pixels(z)
        return self._with_pixels(z, least + functional.relu(difference), least + functional.relu(-difference)), None
