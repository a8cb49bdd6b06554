"""What a classifier's stream is made of: floating-point numbers, or numbers on a fixed-point grid, so that its inverse is exact.

The *stream* is what runs from node to node. In ``fixed_point`` it holds multiples of 2^-16 below 2^7 in magnitude, see
:mod:`flowclf.fixed_point`: a coupling's shift is rounded to them, so that adding it and taking it away again leaves no trace. The
gradient passes straight through the rounding. Then

- ``inverse(forward(x))`` is x to the last bit, at any depth, and a training that recomputes its activations does so without drift;
- the subnets may compute in any precision. Those that were trained in bf16 stay in bf16 for evaluation and for the inverse;
- only what moves numbers and adds them is allowed: additive couplings, permutations, squeezes, ``factor_out``, and a ``split_head``
  without DCT whose ``logit_scale`` is a power of two. Scales belong in the prior, which learns them.

What exactness needs: a coupling must compute the same shift on both ways. So both need the same shape of the batch, the same
device and kernels, the same number of threads, and the same mode of batch norm and dropout. With another batch a subnet can
round differently, rarely, by one step of the grid, which later couplings enlarge. Inputs and latents off the grid are rounded to
it first.

Magnitudes of 2^7 and more leave the grid. Every coupling notes the largest that it has met, and does not wait for the device to
do so; a training raises :class:`~flowclf.errors.GridOverflowError` at its next log point.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from flowclf.errors import GraphError, UsageError
from flowclf.fixed_point import LIMIT, Peak
from flowclf.graph import Graph, modules_by_name
from flowclf.nodes import FlowNode

__all__ = ["GridPeak", "Stream", "grid_peak", "set_stream"]

Stream = Literal["float", "fixed_point"]

_ALLOWED = "additive couplings, permutations, squeezes, factor_out, and a split_head without dct whose logit_scale is a power of 2"


class GridPeak(NamedTuple):
    """The largest magnitude that a stream has met, and where.

    Attributes:
        magnitude: of the number; NaN if one was not a number.
        node: the node's name; ``input`` for what the classifier was given.
    """

    magnitude: float
    node: str

    @property
    def overflows(self) -> bool:
        """Whether it is off the grid."""
        return not self.magnitude < LIMIT


def set_stream(graph: Graph, stream: Stream) -> None:
    """Make the couplings of a graph keep to a stream.

    Raises:
        UsageError: if the stream is neither.
        GraphError: if, for ``fixed_point``, a node does not keep to the grid; the first is named.
    """
    if stream not in get_args(Stream):
        raise UsageError(f"stream must be 'float' or 'fixed_point', found {stream!r}")
    fixed = stream == "fixed_point"
    nodes = modules_by_name(graph)
    for name, module in nodes.items():
        if fixed and not getattr(module, "keeps_grid", False):
            raise GraphError(
                f"node '{name}': a stream in fixed point allows {_ALLOWED}; found {type(module).__name__}({module.extra_repr()})"
            )
    for module in nodes.values():
        if isinstance(module, FlowNode):
            module.fixed_point = fixed


def grid_peak(graph: Graph, inputs: Peak) -> GridPeak:
    """The largest magnitude since the last call.

    Args:
        graph: whose couplings were set to ``fixed_point``.
        inputs: of what the graph was given.
    """
    peaks = {"input": inputs, **{name: getattr(module, "peak", None) for name, module in modules_by_name(graph).items()}}
    found = [GridPeak(peak.take(), name) for name, peak in peaks.items() if peak is not None]
    # The first that overflows is where it began; those behind it only pass it on.
    return next((peak for peak in found if peak.overflows), max(found))
