"""Graphs: build a FrEIA ``GraphINN`` from node specs; check, describe and execute any GraphINN.

FrEIA silently builds a graph that uses an output twice, and fails with an obscure error if one is not used; here both raise an
error with the node's name when the graph is built.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
from pydantic import ValidationError
from torch import Tensor, nn

from flowclf import registry
from flowclf.components import as_declared
from flowclf.errors import GraphError, RegistryError, UsageError
from flowclf.nodes.base import FlowNode, Shape, elements
from flowclf.nodes.split_head import SplitHead
from flowclf.sections import plain
from flowclf.specs import MAX_NODES, read_nodes, shown, unrolled
from flowclf.strict_json import first_problem

__all__ = [
    "Graph",
    "NodeRow",
    "NodeSet",
    "Specs",
    "after_the_logits",
    "build_graph",
    "checked_graph",
    "copy_nodes",
    "describe_graph",
    "execute",
    "graph_from_description",
    "head_of",
    "modules_by_name",
    "node_rows",
    "readout_of",
]

Graph: TypeAlias = GraphINN
Specs: TypeAlias = Sequence[Any]
NodeSet: TypeAlias = frozenset[Node]


def _checked(kind: str, arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Refuse from code what a recipe would refuse; objects, which only code can give, pass."""
    supplied = arguments.keys() & {"classes"} & inspect.signature(registry.nodes.get(kind)).parameters.keys()
    given = {str(key): value for key, value in arguments.items() if key not in supplied}
    try:
        return as_declared("nodes", kind, given) | {key: arguments[key] for key in supplied}
    except ValidationError as error:
        raise GraphError(f"node '{name}': argument {first_problem(error)}") from error


def _make_node(inputs: Any, kind: str, arguments: dict[str, Any], name: str) -> Node:
    component = registry.nodes.get(kind)
    arguments = _checked(kind, arguments, name)
    try:
        node = Node(inputs, component, arguments, name=name)
    except GraphError as error:
        raise GraphError(f"node '{name}': {error}") from error
    except RegistryError as error:
        raise RegistryError(f"node '{name}': {error}") from error
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
        shapes = [n.output_dims[i] for n, i in inputs] if isinstance(inputs, list) else inputs
        raise GraphError(f"node '{name}' cannot be built on input shapes {shapes}: {error}") from error
    node.output_dims = [tuple(int(size) for size in shape) for shape in node.output_dims]
    before = sum(elements(shape) for shape in node.input_dims)
    after = sum(elements(shape) for shape in node.output_dims)
    if before != after:
        raise GraphError(
            f"node '{name}' is not a bijection: inputs {node.input_dims} have {before} elements, outputs {node.output_dims} {after}"
        )
    return node


def build_graph(input_shape: Sequence[int], nodes: Specs, classes: int) -> Graph:
    """Build a graph from a list of node specs: a chain that ends with a SplitHead, which also takes the factored-out parts.

    Args:
        input_shape: (C, H, W) or (D,).
        nodes: each a registered name, a mapping of one name to its arguments, or ``{repeat: n, nodes: [...]}``.
        classes: K, the number of classes; passed to every node with an argument ``classes``.

    Raises:
        GraphError: if shapes do not fit, or the list does not end with a SplitHead; the error names the node and the shapes.
        RegistryError: if a name is not registered.

    Example:
        >>> graph = build_graph((1, 8, 8), ["squeeze", "actnorm", "affine_coupling", "split_head"], classes=10)
        >>> [shape for shape in graph.global_out_shapes]
        [(10,), (54,)]
    """
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(shape) not in (1, 3) or any(not isinstance(size, int) or size < 1 for size in shape):
        raise GraphError(f"input_shape must be (C, H, W) or (D,) of positive integers, found {input_shape}")
    parsed, faults = read_nodes(nodes)
    if faults:
        raise GraphError(f"{shown(faults[0].place)}: {faults[0].message}")
    flat = list(unrolled(parsed))
    node_list: list[Node] = [InputNode(*shape, name="input")]
    stream: tuple[Node, int] = (node_list[0], 0)
    parts: list[tuple[Node, int]] = []
    for index, spec in enumerate(flat, start=1):
        kind, arguments = spec.name, dict(spec.arguments)
        try:
            component = registry.nodes.get(kind)
        except RegistryError as error:
            raise RegistryError(f"{shown(spec.place)}: {error}") from error
        name = f"{index}_{kind}"
        if "classes" in inspect.signature(component).parameters:
            arguments.setdefault("classes", classes)
        is_head = getattr(component, "is_head", False)
        if is_head and index < len(flat):
            raise GraphError(f"node '{name}': a SplitHead ends the graph, but {len(flat) - index} nodes follow it")
        node = _make_node([stream, *parts] if is_head else [stream], kind, arguments, name)
        node_list.append(node)
        stream = (node, 0)
        branches = [(node, output) for output in range(1, len(node.output_dims))]
        if branches and not is_head and not getattr(node.module, "branches", False):
            raise GraphError(
                f"node '{name}' has {len(node.output_dims)} outputs; in a list of specs only a node that declares "
                "`branches = True` may have several, as factor_out does"
            )
        parts += branches
    head = node_list[-1]
    if not _is_head(head):
        raise GraphError(
            f"the graph has no split_head at its end: it ends with node '{head.name}' of output shape {head.output_dims[0]}"
        )
    node_list += [OutputNode((head, 0), name="logits"), OutputNode((head, 1), name="nuisance")]
    return checked_graph(node_list)


def checked_graph(graph: Graph | Iterable[Node]) -> Graph:
    """Check that a FrEIA graph, or the list of nodes for one, is a classifier's; return it as a GraphINN.

    Raises:
        GraphError: if an output is used twice or not at all; two nodes have the same name; there is not exactly one input; there
            are conditions; or the graph does not end with a SplitHead whose outputs are the graph's outputs, logits first.
    """
    node_list = list(graph.node_list) if isinstance(graph, GraphINN) else list(graph)
    strangers = [type(node).__name__ for node in node_list if not isinstance(node, Node)]
    if strangers:
        raise GraphError(f"a graph is a GraphINN or a list of FrEIA nodes, found {strangers[0]} in it")
    uses = Counter((source, output) for node in node_list for source, output in node.inputs)
    known = set(node_list)
    for (source, output), count in uses.items():
        if source not in known:
            raise GraphError(f"node '{source.name}' feeds the graph but is not in its list of nodes")
        if output >= len(source.output_dims):
            raise GraphError(f"node '{source.name}' has {len(source.output_dims)} outputs; output {output} is used")
        if count > 1:
            shape = source.output_dims[output]
            readers = [node.name for node in node_list if (source, output) in [tuple(i) for i in node.inputs]]
            raise GraphError(f"output {output} of node '{source.name}', shape {shape}, is used {count} times, by {readers}")
    for node in node_list:
        if isinstance(node, ConditionNode) or node.conditions:
            node = node if isinstance(node, ConditionNode) else node.conditions[0]
            raise GraphError(f"condition '{node.name}', shape {node.dims}: a classifier's graph cannot have conditions")
        for output, shape in enumerate(node.output_dims):
            if not uses[node, output]:
                raise GraphError(f"output {output} of node '{node.name}', shape {tuple(shape)}, is not used")
    for name, count in Counter(node.name for node in node_list).items():
        if count > 1:
            raise GraphError(f"{count} nodes are named '{name}'; a checkpoint needs unique names")
    inputs = [node for node in node_list if isinstance(node, InputNode)]
    # A GraphINN's nodes are in order of execution; its outputs have their own order.
    outputs = graph.out_nodes if isinstance(graph, GraphINN) else [node for node in node_list if isinstance(node, OutputNode)]
    if len(inputs) != 1:
        raise GraphError(f"a classifier has one input, found {len(inputs)}: {[node.name for node in inputs]}")
    heads = [node for node in node_list if _is_head(node)]
    if len(heads) != 1:
        found = [(node.name, node.input_dims[0]) for node in outputs]
        raise GraphError(f"a classifier's graph ends with one SplitHead, found {len(heads)}; its outputs are {found}")
    if [tuple(node.inputs[0]) for node in outputs] != [(heads[0], 0), (heads[0], 1)]:
        ends = [f"output {node.inputs[0][1]} of '{node.inputs[0][0].name}'" for node in outputs]
        raise GraphError(f"the graph's outputs must be outputs 0 and 1 of SplitHead '{heads[0].name}', found {ends}")
    if isinstance(graph, GraphINN):
        return graph
    try:
        return GraphINN(node_list)
    except (ValueError, TypeError) as error:
        raise GraphError(f"FrEIA refuses the graph: {error}") from error


def copy_nodes(graph: Graph, memo: dict[int, Any]) -> None:
    """Put deep copies of a graph's nodes into ``memo``, in preparation for a deep copy of the graph.

    A node refers to its successor, so without this a deep copy recurses through the whole graph and fails on a long one.
    """
    copies = [(node, object.__new__(type(node))) for node in graph.node_list]
    memo.update({id(node): again for node, again in copies})
    for node, again in copies:
        again.__dict__.update(copy.deepcopy(node.__dict__, memo))


def _is_head(node: Node) -> bool:
    return getattr(node.module, "is_head", False)


def head_of(graph: Graph) -> SplitHead:
    """Find the head of a checked graph."""
    head: SplitHead = next(node.module for node in graph.node_list if _is_head(node))
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


def modules_by_name(graph: Graph) -> dict[str, nn.Module]:
    """Map the nodes' names to their modules, in order of execution."""
    return {node.name: node.module for node in _steps(graph)}


def _steps(graph: Graph) -> tuple[Node, ...]:
    return tuple(node for node in graph.node_list if node.module is not None)


def after_the_logits(graph: Graph) -> NodeSet:
    """Find the final nodes that do not change the logits, which need not run to compute the logits alone.

    These are nodes with ``preserves_logits_of`` in a chain that ends at the head's first input.
    """
    end = next(filter(_is_head, graph.node_list))
    node = end.inputs[0][0]
    found: set[Node] = set()
    if len(end.input_dims[0]) == 3 and not end.module.dct:
        return frozenset()
    while getattr(node.module, "preserves_logits_of", 0) == end.module.classes:
        found.add(node)
        node = node.inputs[0][0]
    return frozenset(found)


def execute(
    graph: Graph,
    values: Sequence[Tensor],
    conditions: Sequence[Tensor] = (),
    *,
    rev: bool = False,
    log_det: bool = True,
    left_out: NodeSet = frozenset(),
    until: Node | None = None,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Run a graph forward, or backward with ``rev``.

    ``GraphINN.forward`` does the same, but re-raises every error as a RuntimeError (so that an out-of-memory error cannot be
    caught) and creates log-determinants on the CPU, rounding scalar ones to float32.

    Args:
        graph: any GraphINN in which each output is used once.
        values: the inputs, or with ``rev`` the outputs, in the graph's order.
        conditions: the conditions, in the graph's order.
        rev: run the inverse.
        log_det: compute the log-determinant.
        left_out: nodes with one input and one output that are skipped.
        until: stop before this node and return its inputs instead of the graph's outputs.

    Returns:
        The outputs, or with ``rev`` the inputs, and the log-determinant of that direction, (B,), nats, or None.
    """
    ends = (graph.out_nodes, graph.in_nodes) if rev else (graph.in_nodes, graph.out_nodes)
    available: dict[tuple[Node, int], Tensor] = {(node, 0): value for node, value in zip(ends[0], values, strict=True)}
    given = dict(zip(graph.condition_nodes, conditions, strict=True))
    total: Tensor | None = None
    scalar = 0.0
    steps = _steps(graph)
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
        if node.conditions:
            own = tuple(given[condition] for condition in node.conditions)
            outputs, jacobian = node.module(inputs, c=own, rev=rev, jac=log_det)
        else:
            outputs, jacobian = node.module(inputs, rev=rev, jac=log_det)
        for index, output in enumerate(outputs):
            available[node, index] = output
        if not log_det or jacobian is None:
            continue
        if isinstance(jacobian, Tensor):
            total = jacobian if total is None else total + jacobian
        else:
            scalar += float(jacobian)
    else:
        results = tuple(available[tuple((node.outputs if rev else node.inputs)[0])] for node in ends[1])
    if not log_det:
        return results, None
    if total is None:
        total = results[0].new_zeros(results[0].shape[0])
    return results, (total + scalar if scalar else total).expand(results[0].shape[0])


@dataclass(frozen=True)
class NodeRow:
    """A row of the node table.

    Attributes:
        name: the node's name in the graph.
        kind: the node's registered name, or its class name.
        shapes_in: shapes of the inputs.
        shapes_out: shapes of the outputs.
        parameters: number of trainable parameters.
    """

    name: str
    kind: str
    shapes_in: tuple[Shape, ...]
    shapes_out: tuple[Shape, ...]
    parameters: int


def _kind(node: Node) -> str:
    return registry.nodes.name_of(node.module_type) or node.module_type.__name__


def node_rows(graph: Graph) -> list[NodeRow]:
    """Build the node table of a graph, in order of execution."""
    return [
        NodeRow(
            node.name,
            _kind(node),
            tuple(tuple(shape) for shape in node.input_dims),
            tuple(tuple(shape) for shape in node.output_dims),
            sum(parameter.numel() for parameter in node.module.parameters() if parameter.requires_grad),
        )
        for node in _steps(graph)
    ]


def describe_graph(graph: Graph) -> dict[str, Any]:
    """Describe a graph as JSON, from which :func:`graph_from_description` builds it again.

    Raises:
        GraphError: if a node is not registered, or has an argument that JSON cannot hold; the error names the node.
    """
    (source,) = graph.in_nodes
    rows = []
    for node in _steps(graph):
        kind = registry.nodes.name_of(node.module_type)
        if kind is None:
            raise GraphError(
                f"node '{node.name}' cannot be saved: {node.module_type.__module__}.{node.module_type.__qualname__} "
                "is not registered"
            )
        arguments = {}
        for argument, value in node.module_args.items():
            try:
                arguments[argument] = plain(value)
            except TypeError as error:
                raise GraphError(
                    f"node '{node.name}' cannot be saved: JSON cannot hold its argument '{argument}', a {type(value).__name__}"
                ) from error
        inputs = [[origin.name, output] for origin, output in node.inputs]
        rows.append({"name": node.name, "kind": kind, "arguments": arguments, "inputs": inputs})
    return {"input": {"name": source.name, "shape": list(source.dims)}, "nodes": rows}


def graph_from_description(description: Mapping[str, Any]) -> Graph:
    """Build a graph from the output of :func:`describe_graph`; it can only contain registered components.

    Raises:
        GraphError: if the description is incomplete or inconsistent.
        RegistryError: if a node is not registered.
    """
    try:
        source = InputNode(*(int(size) for size in description["input"]["shape"]), name=str(description["input"]["name"]))
        nodes: dict[str, Node] = {source.name: source}
        rows = description["nodes"]
        if len(rows) > MAX_NODES:
            raise GraphError(f"the description has {len(rows)} nodes, more than {MAX_NODES}")
        for row in rows:
            inputs = [(nodes[origin], int(output)) for origin, output in row["inputs"]]
            nodes[row["name"]] = _make_node(inputs, row["kind"], dict(row["arguments"]), row["name"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise GraphError(f"the description of the graph is incomplete: {type(error).__name__}: {error}") from error
    head = next(filter(_is_head, nodes.values()), None)
    outputs = [OutputNode((head, index), name=name) for index, name in enumerate(("logits", "nuisance"))] if head else []
    return checked_graph([*nodes.values(), *outputs])
