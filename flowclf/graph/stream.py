"""The stream of a classifier: floating point, or fixed point for an inverse that is exact bit for bit.

The *stream* is the tensors that pass from node to node. In ``fixed_point`` it holds multiples of 2^-16 below 2^7 in magnitude, see
:mod:`flowclf.fixed_point`: a coupling's shift is rounded to them, with a straight-through gradient, so that subtracting it restores
the input exactly. Consequences:

- ``inverse(forward(x))`` is x to the last bit, at any depth, and training with recomputed activations has no drift.
- Subnets may compute in any precision; those trained in bf16 stay in bf16 for evaluation and for the inverse.
- Nodes may only permute and add numbers: additive couplings, permutations, squeezes, ``factor_out``, and a ``split_head`` without
  DCT whose ``logit_scale`` is a power of two. Scales belong in the prior, which learns them.

For exactness a coupling must compute the same shift in both directions: with the same batch shape, device, kernels and number of
threads, and the same modes of batch norm and dropout. With another batch size a subnet can, rarely, round differently by one step
of the grid, which later couplings amplify. Inputs and latents off the grid are rounded to it first. If a magnitude reaches 2^7,
training raises :class:`~flowclf.errors.GridOverflowError` at the next log point.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from flowclf.errors import GraphError, UsageError
from flowclf.fixed_point import LIMIT, Peak
from flowclf.graph.check import Graph, modules_by_name
from flowclf.nodes import FlowNode

Stream = Literal["float", "fixed_point"]

_ALLOWED = "additive couplings, permutations, squeezes, factor_out, and a split_head without dct whose logit_scale is a power of 2"


class GridPeak(NamedTuple):
    """Largest magnitude in a stream, and its place.

    Attributes:
        magnitude: the magnitude; NaN if there was a NaN.
        node: name of the node; ``input`` for the classifier's input.
    """

    magnitude: float
    node: str

    @property
    def overflows(self) -> bool:
        """Whether the magnitude is off the grid."""
        return not self.magnitude < LIMIT


def set_stream(graph: Graph, stream: Stream) -> None:
    """Set the stream of a graph's couplings.

    Raises:
        UsageError: if ``stream`` is unknown.
        GraphError: if ``stream`` is ``fixed_point`` and a node leaves the grid; the error names the first.
    """
    if stream not in get_args(Stream):
        raise UsageError(f"stream must be 'float' or 'fixed_point', found {stream!r}")
    fixed = stream == "fixed_point"
    nodes = modules_by_name(graph)
    for name, module in nodes.items():
        if fixed and not getattr(module, "keeps_grid", False):
            raise GraphError(
                f"node '{name}': a fixed-point stream allows {_ALLOWED}; found {type(module).__name__}({module.extra_repr()})"
            )
    for module in nodes.values():
        if isinstance(module, FlowNode):
            module.fixed_point = fixed


def grid_peak(graph: Graph, inputs: Peak) -> GridPeak:
    """Return the largest magnitude in a fixed-point stream since the last call, with ``inputs`` that of the graph's inputs."""
    peaks = {"input": inputs, **{name: getattr(module, "peak", None) for name, module in modules_by_name(graph).items()}}
    found = [GridPeak(peak.take(), name) for name, peak in peaks.items() if peak is not None]
    # The first node that overflows is the cause; later nodes only pass it on.
    return next((peak for peak in found if peak.overflows), max(found))
