"""Checks that a graph is a classifier's: every output is used once, and one head ends it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
from torch import nn

from flowclf.errors import GraphError, UsageError
from flowclf.graph.flat import FlatGraph
from flowclf.nodes.split_head import SplitHead

Graph: TypeAlias = GraphINN


def checked_graph(graph: Graph | Iterable[Node]) -> Graph:
    """Check that a FrEIA graph, or the list of nodes for one, is a classifier's; return a GraphINN of the same nodes.

    Raises:
        GraphError: if an output is used twice or not at all; two nodes have the same name; there is not exactly one input; there
            are conditions; or the graph does not end with a SplitHead whose outputs are the graph's outputs, logits first.
    """
    node_list = list(graph.node_list if isinstance(graph, GraphINN) else graph)
    for node in node_list:
        if not isinstance(node, Node):
            raise GraphError(f"a graph is a GraphINN or a list of FrEIA nodes, found {type(node).__name__} in it")
    # FrEIA builds a graph that uses an output twice without an error, and its error for an unused output names no node.
    uses = Counter(tuple(source) for node in node_list for source in node.inputs)
    known = set(node_list)
    for (source, output), count in uses.items():
        if source not in known:
            raise GraphError(f"node '{source.name}' feeds the graph but is not in its list of nodes")
        if output >= len(source.output_dims):
            raise GraphError(f"node '{source.name}' has {len(source.output_dims)} outputs; output {output} is used")
        if count > 1:
            readers = [node.name for node in node_list if (source, output) in map(tuple, node.inputs)]
            shape = source.output_dims[output]
            raise GraphError(
                f"output {output} of node '{source.name}', shape {shape}, is used {count} times, by {readers}{_hint(source)}"
            )
    for node in node_list:
        if isinstance(node, ConditionNode) or node.conditions:
            condition = node if isinstance(node, ConditionNode) else node.conditions[0]
            raise GraphError(f"condition '{condition.name}', shape {condition.dims}: a classifier's graph cannot have conditions")
        for output, shape in enumerate(node.output_dims):
            if not uses[node, output]:
                raise GraphError(f"output {output} of node '{node.name}', shape {tuple(shape)}, is not used{_hint(node)}")
    for name, count in Counter(node.name for node in node_list).items():
        if count > 1:
            raise GraphError(f"{count} nodes are named '{name}'; a checkpoint needs unique names")
    inputs = [node for node in node_list if isinstance(node, InputNode)]
    # A GraphINN's nodes are in order of execution; its outputs have their own order.
    outputs = graph.out_nodes if isinstance(graph, GraphINN) else [node for node in node_list if isinstance(node, OutputNode)]
    if len(inputs) != 1:
        raise GraphError(f"a classifier has one input, found {len(inputs)}: {[node.name for node in inputs]}")
    heads = [node for node in node_list if is_head(node)]
    if len(heads) != 1:
        found = [(node.name, node.input_dims[0]) for node in outputs]
        raise GraphError(f"a classifier's graph ends with one SplitHead, found {len(heads)}; its outputs are {found}")
    if [tuple(node.inputs[0]) for node in outputs] != [(heads[0], 0), (heads[0], 1)]:
        ends = [f"output {node.inputs[0][1]} of '{node.inputs[0][0].name}'" for node in outputs]
        raise GraphError(f"the graph's outputs must be outputs 0 and 1 of SplitHead '{heads[0].name}', found {ends}")
    try:
        made = FlatGraph([*(node for node in node_list if not isinstance(node, OutputNode)), *outputs])
    except (ValueError, TypeError) as error:
        raise GraphError(f"FrEIA refuses the graph: {error}") from error
    made.node_list = _ordered(made.out_nodes)
    made.module_list = nn.ModuleList(node.module for node in steps_of(made))
    return made


def _hint(node: Node) -> str:
    """What follows an error about an output of the head: FrEIA takes ``OutputNode(head)`` for the first output alone."""
    ends = "OutputNode((head, 0)) for the logits, OutputNode((head, 1)) for the nuisances"
    return f"; a classifier's graph has both outputs of its head: {ends}" if is_head(node) else ""


def _ordered(ends: Sequence[Node]) -> list[Node]:
    """The nodes in an order of execution that follows from the graph alone.

    FrEIA's order of the nodes of two branches depends on addresses in memory (its issue 168), and with it the names of the weights.
    This is its algorithm (Kahn's, from the outputs backwards) with the inputs of each node in their own order.
    """
    waiting = Counter(source for node in _reached(ends) for source in dict.fromkeys(source for source, _ in node.inputs))
    ready, ordered = deque(ends), []
    while ready:
        node = ready.popleft()
        ordered.append(node)
        for source in dict.fromkeys(source for source, _ in node.inputs):
            waiting[source] -= 1
            if not waiting[source]:
                ready.append(source)
    return ordered[::-1]


def _reached(ends: Sequence[Node]) -> set[Node]:
    """The nodes that the ends depend on."""
    found, open_ = set(ends), list(ends)
    while open_:
        new = {source for source, _ in open_.pop().inputs} - found
        found |= new
        open_ += new
    return found


def is_head(node: Node) -> bool:
    """Whether a node ends a classifier's graph."""
    return getattr(node.module, "is_head", False)


def head_of(graph: Graph) -> SplitHead:
    """Find the head of a checked graph."""
    head: SplitHead = next(node.module for node in graph.node_list if is_head(node))
    return head


def readout_of(graph: Graph) -> Node:
    """Find the last node of a graph that has a ``reading``.

    Raises:
        UsageError: if there is none.
    """
    for node in reversed(graph.node_list):
        if hasattr(node.module, "reading"):
            return node
    raise UsageError("expected a graph with a logit_readout, found none; readout_width adds one to a firevnet")


def steps_of(graph: Graph) -> tuple[Node, ...]:
    """The nodes that have a module, in order of execution."""
    return tuple(node for node in graph.node_list if node.module is not None)


def modules_by_name(graph: Graph) -> dict[str, nn.Module]:
    """Map the nodes' names to their modules, in order of execution."""
    return {node.name: node.module for node in steps_of(graph)}
