"""What all nodes share: FrEIA's calling convention on one side, two methods of mathematics on the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from FrEIA.modules import InvertibleModule
from torch import Tensor

from flowclf.errors import GraphError

__all__ = ["BijectiveNode", "Shape", "channels_of", "elements", "positions", "single_shape"]

Shape = tuple[int, ...]


def elements(shape: Sequence[int]) -> int:
    """Number of elements of a shape without its batch dimension."""
    return math.prod(shape)


def single_shape(dims_in: Iterable[Sequence[int]], node: str) -> Shape:
    """The one input shape of a node that takes one input: (C, H, W) or (D,).

    Raises:
        GraphError: another number of inputs, or a shape of another rank.
    """
    shapes = [tuple(int(size) for size in shape) for shape in dims_in]
    if len(shapes) != 1:
        raise GraphError(f"{node} takes one input, found {len(shapes)}: {shapes}")
    (shape,) = shapes
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise GraphError(f"{node} takes vectors (D,) or feature maps (C, H, W), found {shape}")
    return shape


def channels_of(shape: Shape) -> int:
    """C of feature maps (C, H, W), D of vectors (D,)."""
    return shape[0]


def positions(shape: Shape) -> int:
    """H W of feature maps, 1 for vectors: how often a per-channel map is applied."""
    return elements(shape[1:])


class BijectiveNode(InvertibleModule):
    """A node with one input and one output, usable in any ``FrEIA.framework.GraphINN``.

    A subclass implements :meth:`transform` and :meth:`invert`, both returning the log-determinant of *their own* direction,
    and overrides :meth:`output_shape` where the shape changes. A node whose inverse and gradient share work may also have a
    method ``backward_step(z, conditions, grad_z, grad_log_det, parameters) -> BackwardStep``, which
    :mod:`flowclf.reversible` then uses.

    Attributes:
        exact_inverse: whether :meth:`invert` gives the input back up to rounding, so that a training that recomputes activations
            need not keep it. None where nobody knows: then it is measured.
        kept_logits: K, of a node that never changes what a ``SplitHead`` for K classes with ``dct=True`` reads as logits; else 0.
        keeps_grid: whether what is on the grid of :mod:`flowclf.fixed_point` can stay on it, both ways, without rounding.
    """

    exact_inverse: bool | None = None
    keeps_grid: bool = False
    kept_logits: int = 0

    def __init__(self, dims_in: Iterable[Sequence[int]], dims_c: Iterable[Sequence[int]] | None = None) -> None:
        dims_in = list(dims_in)
        dims_c = list(dims_c or [])
        self_name = type(self).__name__
        shape = single_shape(dims_in, self_name)
        super().__init__([shape], [tuple(condition) for condition in dims_c])
        self.shape = shape

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """z and log|det dz/dx|, (B,), nats; the latter may be None when ``log_det`` is False."""
        raise NotImplementedError

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """x and log|det dx/dz|, (B,), nats; the latter may be None when ``log_det`` is False."""
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of ``shape``."""
        return shape

    def forward(
        self, x_or_z: Iterable[Tensor], c: Iterable[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """FrEIA's convention: a tuple of one tensor in, a tuple of one tensor and the log-determinant out."""
        (value,) = x_or_z
        direction = self.invert if rev else self.transform
        result, log_det = direction(value, tuple(c or ()), jac)
        if jac and log_det is None:
            log_det = value.new_zeros(value.shape[0])
        return (result,), log_det

    def output_dims(self, input_dims: Iterable[Sequence[int]]) -> list[Shape]:
        """FrEIA's shape inference."""
        return [self.output_shape(single_shape(input_dims, type(self).__name__))]
