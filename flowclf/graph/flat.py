"""A graph that is copied and pickled as a list of its nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from FrEIA.framework import GraphINN, Node


class _Place(NamedTuple):
    """Stands for a node: its number in the graph's list."""

    number: int


class FlatGraph(GraphINN):
    """A GraphINN of any length that ``copy``, ``pickle`` and so ``torch.save`` and ``multiprocessing`` can process.

    Nodes refer to their neighbours. Followed from node to node these references exceed Python's limit of recursion at 150 nodes, so
    they are replaced by numbers.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The class, and attributes of the graph and of its nodes without references to nodes."""
        places = {node: _Place(number) for number, node in enumerate(self.node_list)}

        def flat(value: Any) -> Any:
            return places.get(value, value) if isinstance(value, Node) else value

        nodes = [(type(node), _mapped(node.__dict__, flat)) for node in self.node_list]
        return object.__new__, (type(self),), (_mapped(self.__dict__, flat), nodes)

    def __setstate__(self, state: tuple[dict[str, Any], list[tuple[type[Node], dict[str, Any]]]]) -> None:
        """Restore the state of :meth:`__reduce_ex__`."""
        own, rows = state
        nodes = [object.__new__(kind) for kind, _ in rows]

        def whole(value: Any) -> Any:
            return nodes[value.number] if isinstance(value, _Place) else value

        for node, (_, attributes) in zip(nodes, rows, strict=True):
            node.__dict__.update(_mapped(attributes, whole))
        super().__setstate__(_mapped(own, whole))


def _mapped(attributes: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Attributes with each node, also in lists and tuples such as ``inputs``, changed."""

    def within(value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(map(within, value))
        return change(value)

    return {name: within(value) for name, value in attributes.items()}
