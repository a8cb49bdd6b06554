"""Running a graph forward and backward."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from FrEIA.framework import Node
from torch import Tensor

from flowclf.graph.check import Graph, is_head, steps_of
from flowclf.nodes.base import FlowNode
from flowclf.nodes.squeeze import Squeeze

NodeSet: TypeAlias = Collection[Node]


def execute(
    graph: Graph,
    values: Sequence[Tensor],
    conditions: Sequence[Tensor] = (),
    *,
    rev: bool = False,
    log_det: bool = True,
    left_out: NodeSet = (),
    until: Node | None = None,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Run a graph forward, or backward with ``rev``.

    Unlike ``GraphINN.forward``, it does not turn every error into a RuntimeError, nor create log-determinants on the CPU.

    Args:
        graph: any GraphINN in which each output is used once.
        values: the inputs, or with ``rev`` the outputs, in the graph's order.
        conditions: the conditions, in the graph's order.
        rev: run the inverse.
        log_det: compute the log-determinant.
        left_out: nodes with one input and one output to skip.
        until: stop before this node and return its inputs instead of the graph's outputs.

    Returns:
        The outputs, or with ``rev`` the inputs, and the log-determinant of that direction, (B,), nats, or None.
    """
    ends = (graph.out_nodes, graph.in_nodes) if rev else (graph.in_nodes, graph.out_nodes)
    available: dict[tuple[Node, int], Tensor] = {(node, 0): value for node, value in zip(ends[0], values, strict=True)}
    given = dict(zip(graph.condition_nodes, conditions, strict=True))
    total: Tensor | None = None
    scalar = 0.0
    steps = steps_of(graph)
    for node in reversed(steps) if rev else steps:
        sources = node.outputs if rev else node.inputs
        inputs = tuple(available.pop(tuple(source)) for source in sources)
        if node is until:
            results = inputs
            break
        if node in left_out:
            available[node, 0] = inputs[0]
            continue
        if not isinstance(node.module, FlowNode):
            # FrEIA's own nodes take views, which need contiguous memory.
            inputs = tuple(value.contiguous() for value in inputs)
        own: dict[str, Any] = {"c": tuple(given[condition] for condition in node.conditions)} if node.conditions else {}
        outputs, jacobian = node.module(inputs, **own, rev=rev, jac=log_det)
        available.update({(node, index): output for index, output in enumerate(outputs)})
        if isinstance(jacobian, Tensor):
            total = jacobian if total is None else total + jacobian
        elif jacobian is not None:
            scalar += float(jacobian)
    else:
        results = tuple(available[tuple((node.outputs if rev else node.inputs)[0])] for node in ends[1])
    if not log_det:
        return results, None
    batch = results[0].shape[0]
    total = results[0].new_zeros(batch) if total is None else total
    return results, (total + scalar if scalar else total).expand(batch)


def after_the_logits(graph: Graph) -> NodeSet:
    """Find the nodes, in a chain that ends at the head's first input, that do not change the logits; squeezes may lie between."""
    end = next(filter(is_head, graph.node_list))
    maps = len(end.input_dims[0]) == 3
    node, squeezes = end.inputs[0][0], 0
    # torch.compile cannot carry a set of nodes over a part that it leaves to Python.
    found: list[Node] = []
    while True:
        place = getattr(node.module, "preserves_logits", None)
        if isinstance(node.module, Squeeze) and node.module.factor == 2:
            squeezes += 1
        elif place is not None and place == (end.module.classes, end.module.dct if maps else place.dct, squeezes):
            found.append(node)
        else:
            return tuple(found)
        node = node.inputs[0][0]
