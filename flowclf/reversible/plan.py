"""Execution plan: a GraphINN as a list of steps that read and write edges, with what needs a gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn

from flowclf.errors import GraphError
from flowclf.graph import Graph, NodeSet

Edge: TypeAlias = tuple[Any, int]
"""An output of a FrEIA node: (node, index)."""

Site: TypeAlias = tuple[nn.Module, str, int]
"""Place of a parameter: its module, its name there, and its index among the plan's parameters."""


@dataclass
class Step:
    """Execution of one node, whose submodules are in ``modules``.

    ``conditions`` are indices of the graph's conditions, ``sites`` the places of the parameters that need a gradient; ``needed`` is
    whether an input, a condition or a parameter needs one.
    """

    index: int
    module: nn.Module
    modules: tuple[nn.Module, ...]
    reads: tuple[Edge, ...]
    writes: tuple[Edge, ...]
    conditions: tuple[int, ...]
    sites: list[Site] = field(default_factory=list)
    needed: bool = False


@dataclass
class Plan:
    """Steps in order of execution, from sources to sinks, and the parameters and edges (``live``) that need a gradient."""

    rev: bool
    steps: list[Step]
    sources: list[Edge]
    sinks: list[Edge]
    parameters: list[Tensor]
    live: set[Edge]


def _check(graph: Graph) -> None:
    uses = Counter(tuple(edge) for node in graph.node_list for edge in node.inputs)
    for node in graph.node_list:
        for number, shape in enumerate(node.output_dims):
            count = uses[node, number]
            if count != 1 and node not in graph.condition_nodes:
                raise GraphError(
                    f"output {number} of node '{node.name}', shape {tuple(shape)}, is used {count} times; a graph can be "
                    "inverted, and its activations recomputed, only where each output is used once"
                )


def make_plan(graph: Graph, values: Sequence[Tensor], conditions: Sequence[Tensor], *, rev: bool, left_out: NodeSet = ()) -> Plan:
    """Plan the execution of a graph for given tensors, which determine what needs a gradient; arguments as for ``execute``.

    Raises:
        GraphError: if an output is used twice or not at all, or the number of values or conditions is not the graph's.
    """
    _check(graph)
    inputs: list[Edge] = [(node, 0) for node in graph.in_nodes]
    outputs: list[Edge] = [tuple(node.inputs[0]) for node in graph.out_nodes]
    sources, sinks = (outputs, inputs) if rev else (inputs, outputs)
    for what, given, taken in (("values", values, sources), ("conditions", conditions, graph.condition_nodes)):
        if len(given) != len(taken):
            raise GraphError(f"the graph takes {len(taken)} {what}, found {len(given)}")
    live = {edge for edge, value in zip(sources, values, strict=True) if value.requires_grad}
    numbers: dict[int, int] = {}
    parameters: list[Tensor] = []
    steps: list[Step] = []
    nodes = [node for node in graph.node_list if node.module is not None]
    handed_on: dict[Edge, Edge] = {}
    for node in reversed(nodes) if rev else nodes:
        reads: tuple[Edge, ...] = tuple(handed_on.get(tuple(edge), tuple(edge)) for edge in node.inputs)
        if node in left_out:
            handed_on[node, 0] = reads[0]
            continue
        writes: tuple[Edge, ...] = tuple((node, n) for n in range(len(node.output_dims)))
        if rev:
            reads, writes = writes, reads
        chosen = tuple(graph.condition_nodes.index(condition) for condition in node.conditions)
        step = Step(len(steps), node.module, tuple(node.module.modules()), reads, writes, chosen)
        for module in step.modules:
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.requires_grad:
                    number = numbers.setdefault(id(parameter), len(parameters))
                    if number == len(parameters):
                        parameters.append(parameter)
                    step.sites.append((module, name, number))
        given_live = any(edge in live for edge in reads) or any(conditions[number].requires_grad for number in chosen)
        step.needed = given_live or bool(step.sites)
        if step.needed:
            live.update(writes)
        steps.append(step)
    return Plan(rev, steps, sources, sinks, parameters, live)
