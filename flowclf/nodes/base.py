"""What all nodes share: FrEIA's calling convention, what a node declares about itself, and two methods of mathematics.

A node of one's own, registered as an entry point of the group ``flowclf.nodes``, derives from :class:`BijectiveNode`, which has one
input and one output, or from :class:`FlowNode`, which leaves the calling convention to it. Whatever flowclf needs to know of a node
is an attribute of :class:`FlowNode`; of FrEIA's own nodes, which have none of them, it assumes the defaults, and that they take
contiguous tensors only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from FrEIA.modules import InvertibleModule
from torch import Tensor

from flowclf.errors import GraphError
from flowclf.fixed_point import Peak

Shape = tuple[int, ...]
Shapes = Iterable[Sequence[int]]
"""What FrEIA passes to a node's constructor and to its shape inference: (C, H, W) or (D,) for each input."""


def elements(shape: Sequence[int]) -> int:
    """Number of elements of a shape without its batch dimension."""
    return math.prod(shape)


def single_shape(dims_in: Shapes, node: str) -> Shape:
    """The one input shape of a node that takes one input: (C, H, W) or (D,).

    Raises:
        GraphError: if the number of inputs or the rank of the shape is another.
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


class FlowNode(InvertibleModule):
    """A FrEIA ``InvertibleModule`` that declares what graphs, checkpoints and :mod:`flowclf.reversible` may do with it.

    Its constructor takes ``dims_in`` and ``dims_c``, the shapes of its inputs and conditions, and keyword arguments, which a recipe
    may give; an argument ``classes`` is supplied. ``forward(x_or_z, c, rev, jac)`` takes and gives tuples of tensors, and the
    log-determinant of its own direction, (B,), nats. It takes tensors of any memory format and never writes into them.

    A node whose inverse and gradient share work may have a method ``backward_step(z, conditions, grad_z, grad_log_det, parameters)
    -> BackwardStep``, which :mod:`flowclf.reversible` then uses, see :mod:`flowclf.nodes.gradients`. A node that finds the class in
    its input or output may have a method ``reading(z)``, (B, K), in logits, which ``InvertibleClassifier.read`` then uses.

    Attributes:
        exact_inverse: whether the inverse gives the input back up to rounding, so that a training that recomputes activations
            need not keep it. None where nobody knows: then it is measured.
        keeps_grid: whether what is on the grid of :mod:`flowclf.fixed_point` can stay on it, both ways, without rounding.
        fixed_point: set while the stream is on that grid; a node that computes what it adds then rounds it.
        peak: with ``fixed_point``, the largest magnitude of what a node computed; None of a node that only moves numbers.
        branches: whether, in a list of node specs, only the first output goes on to the next node, and the others to the head.
        is_head: whether the node ends a classifier's graph: it takes what went on and then every branch, and gives logits and
            nuisances, as :class:`~flowclf.nodes.SplitHead` does, from which a head of one's own derives.
        preserves_logits_of: K, of a node that never changes what a ``SplitHead`` for K classes with ``dct=True`` reads as logits;
            else 0.

    Example:
        >>> import torch
        >>> class EveryOther(FlowNode):
        ...     branches = True
        ...
        ...     def forward(self, x_or_z, c=None, rev=False, jac=True):
        ...         values = tuple(x_or_z)
        ...         outputs = (torch.stack(values, 2).flatten(1, 2),) if rev else (values[0][:, ::2], values[0][:, 1::2])
        ...         return outputs, values[0].new_zeros(len(values[0]))
        ...
        ...     def output_dims(self, input_dims):
        ...         ((channels, *size),) = input_dims
        ...         return [(channels // 2, *size)] * 2
        >>> node = EveryOther([(6,)])
        >>> (kept, out), _ = node((torch.arange(6.0)[None],))
        >>> kept, node((kept, out), rev=True)[0][0]
        (tensor([[0., 2., 4.]]), tensor([[0., 1., 2., 3., 4., 5.]]))
    """

    exact_inverse: bool | None = None
    keeps_grid: bool = False
    fixed_point: bool = False
    peak: Peak | None = None
    branches: bool = False
    is_head: bool = False
    preserves_logits_of: int = 0


class BijectiveNode(FlowNode):
    """A node with one input and one output, usable in any ``FrEIA.framework.GraphINN``.

    A subclass implements :meth:`transform` and :meth:`invert`, both returning the log-determinant of *their own* direction,
    and overrides :meth:`output_shape` where the shape changes.
    """

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None) -> None:
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

    def output_dims(self, input_dims: Shapes) -> list[Shape]:
        """FrEIA's shape inference."""
        return [self.output_shape(single_shape(input_dims, type(self).__name__))]
