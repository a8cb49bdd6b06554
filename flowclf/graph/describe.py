"""A graph as a table, and as JSON from which it is built again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from FrEIA.framework import InputNode, Node, OutputNode
from torch import nn

from flowclf import registry
from flowclf.component_schema.sections import plain
from flowclf.component_schema.specs import MAX_NODES
from flowclf.errors import GraphError
from flowclf.graph.check import Graph, checked_graph, is_head, steps_of
from flowclf.graph.specs import make_node
from flowclf.nodes.base import Shape


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


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def node_rows(graph: Graph) -> list[NodeRow]:
    """Build the node table of a graph, in order of execution."""
    return [
        NodeRow(
            node.name,
            registry.nodes.name_of(node.module_type) or node.module_type.__name__,
            tuple(map(tuple, node.input_dims)),
            tuple(map(tuple, node.output_dims)),
            parameter_count(node.module),
        )
        for node in steps_of(graph)
    ]


def describe_graph(graph: Graph) -> dict[str, Any]:
    """Describe a graph as JSON, from which :func:`graph_from_description` builds it again.

    Raises:
        GraphError: if a node is not registered, or has an argument that JSON cannot hold; the error names the node.
    """
    (source,) = graph.in_nodes
    rows = []
    for node in steps_of(graph):
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
            nodes[row["name"]] = make_node(inputs, row["kind"], dict(row["arguments"]), row["name"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise GraphError(f"the description of the graph is incomplete: {type(error).__name__}: {error}") from error
    head = next(filter(is_head, nodes.values()), None)
    outputs = [OutputNode((head, index), name=name) for index, name in enumerate(("logits", "nuisance"))] if head else []
    return checked_graph([*nodes.values(), *outputs])
