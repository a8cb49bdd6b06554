"""Specs: registered components written as plain lists and mappings, the same in YAML and in Python.

A spec is a registered name, or a mapping of one name to its arguments. A list of node specs may also hold repeats, each
``{repeat: n, nodes: [...]}``. Only their form is read here, not whether names and arguments are valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowclf.component_schema.sections import BAD_VALUE, MISSING_KEY, UNKNOWN_KEY, Place, found, unknown_key
from flowclf.errors import GraphError

# Repeats are unrolled for the first, and inside one another for the second.
MAX_NODES, MAX_REPEAT_DEPTH = 10_000, 10
_REPEAT = ("repeat", "nodes")


class SpecError(GraphError):
    """A spec of another form; place and kind are those of :mod:`flowclf.component_schema.sections`."""

    def __init__(self, message: str, place: Place = (), kind: str = BAD_VALUE) -> None:
        self.message, self.place, self.kind = message, place, kind
        super().__init__(message)


@dataclass(frozen=True)
class NodeSpec:
    """A node of a list: its place there, its name, which may not be registered, and its arguments."""

    place: Place
    name: str
    arguments: dict[str, Any]

    @property
    def spec(self) -> str | dict[str, Any]:
        """The node as it may be written."""
        return {self.name: self.arguments} if self.arguments else self.name


@dataclass(frozen=True)
class Repeat:
    """Nodes that are repeated, ``times`` >= 1 in all."""

    times: int
    nodes: list[NodeSpec | Repeat]


def shown(place: Place) -> str:
    """A place in a list of node specs, for a message.

    Example:
        >>> shown((0, "nodes", 2))
        'nodes[0].nodes[2]'
    """
    return "nodes" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)


def name_and_arguments(spec: Any, kind: str) -> tuple[str, dict[str, Any]]:
    """The name in a spec, and its arguments; ``kind`` is the word for the component in errors, such as ``node``.

    Raises:
        SpecError: if it is neither a name nor a mapping of one name to its arguments.

    Example:
        >>> name_and_arguments({"conv": {"width": 8}}, "subnet")
        ('conv', {'width': 8})
    """
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping) or len(spec) != 1:
        keys = f" of {len(spec)} keys: {', '.join(map(str, list(spec)[:5]))}"[:200] if isinstance(spec, Mapping) and spec else ""
        message = f"expected the name of a registered {kind}, or a mapping of one name to its arguments; found {found(spec)}{keys}"
        raise SpecError(message)
    ((name, arguments),) = spec.items()
    if not isinstance(name, str):
        raise SpecError(f"expected the name of a registered {kind}, found {found(name)}", (name,), UNKNOWN_KEY)
    if not isinstance(arguments, Mapping):
        hint = f"; without arguments, write '{name}' alone" if arguments is None else ""
        raise SpecError(f"expected a mapping of arguments of {kind} '{name}', found {found(arguments)}{hint}", (name,))
    return name, {str(key): value for key, value in arguments.items()}


def read_nodes(specs: Any) -> tuple[list[NodeSpec | Repeat], list[SpecError]]:
    """The nodes of a list of node specs, and all errors of its form.

    Example:
        >>> nodes, faults = read_nodes(["squeeze", {"repeat": 2, "nodes": ["actnorm"]}])
        >>> [node.name for node in unrolled(nodes)], faults
        (['squeeze', 'actnorm', 'actnorm'], [])
    """
    faults: list[SpecError] = []
    nodes = _read(specs, (), faults)
    if not faults and (count := _count(nodes)) > MAX_NODES:
        faults.append(SpecError(f"expected at most {MAX_NODES} nodes, repeats unrolled; found {count}"))
    return nodes, faults


def unrolled(nodes: list[NodeSpec | Repeat]) -> Iterator[NodeSpec]:
    """The nodes in order, each repeat as often as it says."""
    for node in nodes:
        if isinstance(node, Repeat):
            for _ in range(node.times):
                yield from unrolled(node.nodes)
        else:
            yield node


def _count(nodes: list[NodeSpec | Repeat]) -> int:
    return sum(node.times * _count(node.nodes) if isinstance(node, Repeat) else 1 for node in nodes)


def _read(specs: Any, place: Place, faults: list[SpecError]) -> list[NodeSpec | Repeat]:
    if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence) or not specs:
        faults.append(SpecError(f"expected a list of at least one node, found {found(specs)}", place))
        specs = []
    if len(specs) > MAX_NODES:
        faults.append(SpecError(f"expected at most {MAX_NODES} nodes, found {len(specs)}", place))
        specs = []
    nodes: list[NodeSpec | Repeat] = []
    for index, spec in enumerate(specs):
        here = (*place, index)
        if isinstance(spec, Mapping) and not spec.keys().isdisjoint(_REPEAT):
            nodes.append(_read_repeat(spec, here, faults))
            continue
        try:
            nodes.append(NodeSpec(here, *name_and_arguments(spec, "node")))
        except SpecError as error:
            faults.append(SpecError(error.message, (*here, *error.place), error.kind))
    return nodes


def _read_repeat(spec: Mapping[str, Any], place: Place, faults: list[SpecError]) -> Repeat:
    faults += [SpecError(unknown_key(key, _REPEAT), (*place, key), UNKNOWN_KEY) for key in spec if key not in _REPEAT]
    missing = "missing; a repeat has the keys repeat and nodes"
    faults += [SpecError(missing, (*place, key), MISSING_KEY) for key in _REPEAT if key not in spec]
    times, inside = spec.get("repeat", 1), (*place, "nodes")
    if not isinstance(times, int) or isinstance(times, bool) or times < 1:
        faults.append(SpecError(f"expected an integer of at least 1, found {found(times)}", (*place, "repeat")))
        times = 1
    if "nodes" in spec and len(inside) <= 2 * MAX_REPEAT_DEPTH:
        return Repeat(times, _read(spec["nodes"], inside, faults))
    if "nodes" in spec:
        faults.append(SpecError(f"expected repeats nested at most {MAX_REPEAT_DEPTH} deep", inside))
    return Repeat(times, [])
