"""Base classes of nodes.

Your own node, registered as an entry point of the group ``flowclf.nodes``, derives from :class:`BijectiveNode`, with one input and
one output, or from :class:`FlowNode`. FrEIA's own nodes get the defaults of the attributes of :class:`FlowNode`, and contiguous
tensors only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from FrEIA.modules import InvertibleModule
from torch import Tensor

from flowclf.errors import GraphError
from flowclf.fixed_point import Peak

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Sequence[Sequence[int]]
"""Shapes of a node's inputs or outputs without the batch dimension, (C, H, W) or (D,) each, as FrEIA passes them."""


def single_shape(dims_in: Shapes, node: str) -> Shape:
    """The input shape, (C, H, W) or (D,), of a node that takes one input.

    Raises:
        GraphError: if there are more inputs or none, or the rank is not 1 or 3.
    """
    shapes = [tuple(int(size) for size in shape) for shape in dims_in]
    if len(shapes) != 1:
        raise GraphError(f"{node} takes one input, found {len(shapes)}: {shapes}")
    (shape,) = shapes
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise GraphError(f"{node} takes vectors (D,) or feature maps (C, H, W), found {shape}")
    return shape


def positions(shape: Shape) -> int:
    """Number of positions: H W of feature maps, 1 of vectors."""
    return math.prod(shape[1:])


class LogitPlace(NamedTuple):
    """Where a head reads the logits, seen from a node before it.

    Attributes:
        classes: K.
        dct: as in the head: from the means of channels, times the root of their number of pixels, or from the first pixel.
        squeezes: number of squeezes by 2 between the node and the head.
    """

    classes: int
    dct: bool
    squeezes: int


class FlowNode(InvertibleModule):
    """A FrEIA ``InvertibleModule`` that declares what graphs, checkpoints and :mod:`flowclf.reversible` may do with it.

    Its constructor takes ``dims_in`` and ``dims_c``, the shapes of its inputs and conditions, and keyword arguments, which a recipe
    may set, except ``classes``, which is supplied. ``forward(x_or_z, c, rev, jac)`` takes and returns tuples of tensors, and
    returns the log-determinant of its direction, (B,), nats. It accepts any memory format and never writes into its inputs.

    Two methods are optional: ``backward_step(z, conditions, grad_z, grad_log_det, parameters) -> BackwardStep``, for a node whose
    inverse and gradient share work, see :mod:`flowclf.nodes.gradients`; and ``reading(z)``, (B, K), in logits, for a node that
    computes the class from its output, see ``InvertibleClassifier.invert_to_readout``.

    Attributes:
        exact_inverse: whether the inverse restores the input up to rounding, so that recomputing activations need not store it;
            None if that has to be measured.
        keeps_grid: whether numbers on the grid of :mod:`flowclf.fixed_point` can stay on it in both directions.
        fixed_point: set while the stream is on that grid; a node then rounds what it adds.
        peak: with ``fixed_point``, the largest magnitude that the node computed; None if it only moves numbers.
        branches: whether, in a list of node specs, only the first output goes to the next node, and the others to the head.
        is_head: whether the node ends a classifier's graph: its inputs are the stream and then every branch, its outputs logits and
            nuisances; your own head derives from :class:`~flowclf.nodes.SplitHead`.
        preserves_logits: where a ``SplitHead`` reads logits that the node never changes; None if it may change any.
    """

    exact_inverse: bool | None = None
    keeps_grid: bool = False
    fixed_point: bool = False
    peak: Peak | None = None
    branches: bool = False
    is_head: bool = False
    preserves_logits: LogitPlace | None = None


class BijectiveNode(FlowNode):
    """A node with one input and one output, usable in any ``FrEIA.framework.GraphINN``.

    A subclass implements :meth:`transform` and :meth:`invert`, each with the log-determinant of its own direction, and overrides
    :meth:`output_shape` if the shape changes.

    Example:
        >>> import torch
        >>> class Reversed(BijectiveNode):
        ...     def transform(self, x, conditions, log_det):
        ...         return x.flip(1), None
        ...
        ...     invert = transform
        >>> Reversed([(3,)])((torch.tensor([[1.0, 2.0, 3.0]]),))
        ((tensor([[3., 2., 1.]]),), tensor([0.]))
    """

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None) -> None:
        shape = single_shape(dims_in, type(self).__name__)
        super().__init__([shape], [tuple(condition) for condition in dims_c or ()])
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
        result, log_det = (self.invert if rev else self.transform)(value, tuple(c or ()), jac)
        return (result,), value.new_zeros(value.shape[0]) if jac and log_det is None else log_det

    def output_dims(self, input_dims: Shapes) -> list[Shape]:
        """FrEIA's shape inference."""
        return [self.output_shape(single_shape(input_dims, type(self).__name__))]
