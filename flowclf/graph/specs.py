"""From lists of node specs to graphs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from FrEIA.framework import InputNode, Node, OutputNode
from pydantic import ValidationError

from flowclf import registry
from flowclf.component_schema.components import as_declared
from flowclf.component_schema.sections import first_problem
from flowclf.component_schema.specs import NodeSpec, read_nodes, shown, unrolled
from flowclf.errors import GraphError, RegistryError
from flowclf.graph.check import Graph, checked_graph, is_head
from flowclf.nodes.base import Shape
from flowclf.nodes.squeeze import Squeeze

Specs: TypeAlias = Sequence[Any]


def build_graph(input_shape: Sequence[int], nodes: Specs, classes: int) -> Graph:
    """Build a graph from a list of node specs: a chain that ends with a SplitHead, which also takes the factored-out parts.

    Args:
        input_shape: (C, H, W) or (D,).
        nodes: each a registered name, a mapping of one name to its arguments, or ``{repeat: n, nodes: [...]}``.
        classes: K, passed to every node with an argument ``classes``.

    Raises:
        GraphError: if shapes do not fit, or the list does not end with a SplitHead; the error names the node and the shapes.
        RegistryError: if a name is not registered.

    Example:
        >>> build_graph((1, 8, 8), ["squeeze", "actnorm", "affine_coupling", "split_head"], classes=10).global_out_shapes
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
        ends = getattr(component, "is_head", False)
        if ends and index < len(flat):
            raise GraphError(f"node '{name}': a SplitHead ends the graph, but {len(flat) - index} nodes follow it")
        try:
            node = make_node([stream, *parts] if ends else [stream], kind, arguments, name)
        except GraphError as error:
            raise GraphError(f"{error}{_missing_pixels(shape, flat) if component is Squeeze else ''}") from error
        node_list.append(node)
        stream = (node, 0)
        branches = [(node, output) for output in range(1, len(node.output_dims))]
        if branches and not ends and not getattr(node.module, "branches", False):
            raise GraphError(
                f"node '{name}' has {len(node.output_dims)} outputs; in a list of specs only a node that declares "
                "`branches = True` may have several, as factor_out does"
            )
        parts += branches
    head = node_list[-1]
    if not is_head(head):
        raise GraphError(
            f"the graph has no split_head at its end: it ends with node '{head.name}' of output shape {head.output_dims[0]}"
        )
    node_list += [OutputNode((head, 0), name="logits"), OutputNode((head, 1), name="nuisance")]
    return checked_graph(node_list)


def _missing_pixels(shape: Shape, specs: Sequence[NodeSpec]) -> str:
    """What padding would let all squeezes of a list divide inputs of a shape, as the end of an error; empty if none is missing."""
    factors = [spec.arguments.get("factor", 2) for spec in specs if registry.nodes.get(spec.name) is Squeeze]
    if len(shape) != 3 or not all(isinstance(factor, int) and factor > 0 for factor in factors):
        return ""
    factor = math.prod(factors)
    rows, columns = (-size % factor for size in shape[1:])
    if not rows + columns:
        return ""
    sides = [columns // 2, rows // 2, columns - columns // 2, rows - rows // 2]
    needed = f"{shape[1] + rows} x {shape[2] + columns}"
    return (
        f"; all squeezes together divide by {factor}: pad the inputs of {shape[1]} x {shape[2]} pixels to {needed}, "
        f"with pad: {sides} (left, top, right, bottom) if they are not padded yet"
    )


def make_node(inputs: Any, kind: str, arguments: dict[str, Any], name: str) -> Node:
    """Build a node of a registered kind on outputs of other nodes.

    Raises:
        GraphError: if the arguments or the shapes of the inputs do not fit, or the node is no bijection; the error names the node.
    """
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
    before = sum(map(math.prod, node.input_dims))
    after = sum(map(math.prod, node.output_dims))
    if before != after:
        raise GraphError(
            f"node '{name}' is not a bijection: inputs {node.input_dims} have {before} elements, outputs {node.output_dims} {after}"
        )
    return node


def _checked(kind: str, arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Refuse arguments that a recipe could not set, except objects, which only code can pass."""
    supplied = arguments.keys() & {"classes"} & inspect.signature(registry.nodes.get(kind)).parameters.keys()
    given = {str(key): value for key, value in arguments.items() if key not in supplied}
    try:
        return as_declared("nodes", kind, given) | {key: arguments[key] for key in supplied}
    except ValidationError as error:
        raise GraphError(f"node '{name}': argument {first_problem(error)}") from error
