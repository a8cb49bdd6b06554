"""Recomputed activations as a function like ``flowclf.graph.execute``, a module and a context manager."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flowclf import graph as plain
from flowclf.errors import UsageError
from flowclf.graph import Graph, NodeSet
from flowclf.reversible.backprop import Run, differentiable
from flowclf.reversible.plan import make_plan

if TYPE_CHECKING:
    from flowclf.classifier import InvertibleClassifier


def execute(
    graph: Graph,
    values: Sequence[Tensor],
    conditions: Sequence[Tensor] = (),
    *,
    rev: bool = False,
    log_det: bool = True,
    keep_every: int | None = None,
    left_out: NodeSet = (),
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Run a graph as :func:`flowclf.graph.execute` does, storing only outputs, conditions and parameters for the backward pass.

    Second derivatives are not supported, and ``left_out`` only forward.

    Args:
        keep_every: also store the input of every k-th node, so that errors of inverses add up over at most k nodes.

    Raises:
        GraphError: if an output of a node is used twice or not at all.
        UsageError: if ``keep_every`` is below 1; in the backward pass, if a second derivative is requested, or a node depends on a
            tensor with gradient that is not part of the graph.

    Example:
        >>> from flowclf.graph import build_graph
        >>> graph = build_graph((1, 8, 8), ["squeeze", "additive_coupling", "split_head"], classes=10)
        >>> (logits, nuisance), log_det = execute(graph, (torch.rand(2, 1, 8, 8),))
        >>> logits.sum().backward()
    """
    if keep_every is not None and keep_every < 1:
        raise UsageError(f"keep_every must be at least 1, or None, found {keep_every}")
    if torch.is_grad_enabled():
        plan = make_plan(graph, values, conditions, rev=rev, left_out=left_out)
        if plan.live:
            run = Run(plan, values[0].device, log_det=log_det, keep_every=keep_every)
            results = differentiable(run, values, conditions)
            return (results[:-1], results[-1]) if log_det else (results, None)
    return plain.execute(graph, values, conditions, rev=rev, log_det=log_det, left_out=left_out)


class Recompute(nn.Module):
    """Wrapper that trains any GraphINN without storing activations; it is called like the graph and shares its parameters.

    With ``intermediate_outputs`` no memory can be saved, and the graph itself runs.

    Args:
        graph: a ``FrEIA.framework.GraphINN`` in which each output is used once.
        keep_every: as for :func:`execute`.

    Example:
        >>> from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
        >>> from FrEIA.modules import NICECouplingBlock
        >>> source = InputNode(4, name="input")
        >>> block = Node(source, NICECouplingBlock, {"subnet_constructor": nn.Linear}, name="block")
        >>> model = Recompute(GraphINN([source, block, OutputNode(block, name="output")]))
        >>> z, log_det = model(torch.randn(3, 4))
        >>> z.square().sum().backward()
    """

    def __init__(self, graph: Graph, keep_every: int | None = None) -> None:
        super().__init__()
        self.graph = graph
        self.keep_every = keep_every

    def forward(
        self,
        x_or_z: Tensor | Iterable[Tensor],
        c: Tensor | Iterable[Tensor] | None = None,
        rev: bool = False,
        jac: bool = True,
        intermediate_outputs: bool = False,
    ) -> tuple[Any, Any]:
        """Run the graph as ``GraphINN.forward`` does: one output tensor or a tuple of several, and the log-determinant, (B,)."""
        if intermediate_outputs:
            result: tuple[Any, Any] = self.graph(x_or_z, c, rev, jac, intermediate_outputs=True)
            return result
        values = (x_or_z,) if isinstance(x_or_z, Tensor) else tuple(x_or_z)
        conditions = () if c is None else (c,) if isinstance(c, Tensor) else tuple(c)
        outputs, log_det = execute(self.graph, values, conditions, rev=rev, log_det=jac, keep_every=self.keep_every)
        if log_det is None:
            log_det = outputs[0].new_zeros(outputs[0].shape[0])
        single = len(outputs) == 1 and not self.graph.force_tuple_output
        return outputs[0] if single else outputs, log_det


@contextlib.contextmanager
def recompute(classifier: InvertibleClassifier, keep_every: int | None = None) -> Iterator[None]:
    """Context in which a classifier's forward passes store no activations; their backward passes may come after it.

    Args:
        keep_every: as for :func:`execute`.

    Example:
        >>> import flowclf
        >>> clf = flowclf.build_classifier((1, 8, 8), ["squeeze", "additive_coupling", "split_head"], classes=10)
        >>> with recompute(clf):
        ...     encoding = clf(torch.rand(2, 1, 8, 8))
        >>> encoding.logits.sum().backward()
    """
    before = classifier.activations, classifier.keep_every
    classifier.activations, classifier.keep_every = "recompute", keep_every
    try:
        yield
    finally:
        classifier.activations, classifier.keep_every = before
