"""Graphs with branches, built by hand from nodes of flowclf and of FrEIA.

``python branching_graphs.py FOLDER COUNT`` builds each graph COUNT times and compares it with the model in FOLDER, which the first
call saves; it fails if the same weights compute another function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import Split
from torch import nn

import flowclf
from flowclf.nodes import ActNorm, AffineCoupling, FactorOut, SplitHead, Squeeze

Parts = list[tuple[Node, int]]


def _graph(branch: Callable[[list[Node], Node], Parts]) -> GraphINN:
    nodes: list[Node] = [InputNode(1, 8, 8, name="input")]
    nodes.append(Node(nodes[0], Squeeze, {}, name="squeeze"))
    parts = branch(nodes, nodes[-1])
    head = Node(parts, SplitHead, {"classes": 4}, name="head")
    return GraphINN([*nodes, head, OutputNode((head, 0), name="logits"), OutputNode((head, 1), name="nuisance")])


def _after(nodes: list[Node], source: Any, kind: type, name: str, **arguments: Any) -> Node:
    nodes.append(Node(source, kind, arguments, name=name))
    return nodes[-1]


def two(nodes: list[Node], start: Node) -> Parts:
    """An ActNorm on each output of a factor_out."""
    split = _after(nodes, start, FactorOut, "split")
    return [(_after(nodes, (split, index), ActNorm, f"norm{index}"), 0) for index in (0, 1)]


def three(nodes: list[Node], start: Node) -> Parts:
    """Three branches from two factor_outs, one of them longer."""
    first = _after(nodes, start, FactorOut, "first", keep=3)
    second = _after(nodes, (first, 0), FactorOut, "second")
    long = _after(nodes, _after(nodes, (second, 0), ActNorm, "a"), AffineCoupling, "c", subnet={"conv": {"width": 4}})
    return [(long, 0), (_after(nodes, (first, 1), ActNorm, "b"), 0), (_after(nodes, (second, 1), ActNorm, "d"), 0)]


def nested(nodes: list[Node], start: Node) -> Parts:
    """A branch within a branch."""
    outer = _after(nodes, start, FactorOut, "outer")
    side = _after(nodes, (outer, 1), ActNorm, "side")
    inner = _after(nodes, side, FactorOut, "inner")
    ends = [_after(nodes, (inner, index), ActNorm, f"end{index}") for index in (0, 1)]
    return [(_after(nodes, (outer, 0), ActNorm, "main"), 0), *((end, 0) for end in ends)]


def stock(nodes: list[Node], start: Node) -> Parts:
    """FrEIA's own Split into three."""
    split = _after(nodes, start, Split, "split", section_sizes=[2, 1, 1], dim=0)
    return [(_after(nodes, (split, index), ActNorm, f"norm{index}"), 0) for index in range(3)]


SHAPES = {branch.__name__: branch for branch in (two, three, nested, stock)}


def build(shape: str, seed: int | None = None) -> flowclf.InvertibleClassifier:
    """A classifier with that shape; with a seed, each node's weights depend on the seed and on the node's name alone."""
    clf = flowclf.InvertibleClassifier(_graph(SHAPES[shape])).eval()
    for node in clf.graph.node_list:
        if seed is not None and node.module is not None:
            generator = torch.Generator().manual_seed(seed + sum(map(ord, node.name)))
            for parameter in node.module.parameters():
                nn.init.normal_(parameter, std=0.3, generator=generator)
    return clf


@torch.no_grad()
def function(clf: flowclf.InvertibleClassifier) -> torch.Tensor:
    """What a classifier computes of a fixed batch."""
    logits, nuisance, log_det = clf(torch.linspace(-1, 1, 128).view(2, 1, 8, 8))
    return torch.cat([logits, nuisance, log_det[:, None]], dim=1)


def check(folder: Path, count: int) -> None:
    """Compare new builds with the saved model of each shape."""
    # Nodes at other addresses in each process and in each round.
    kept: list[Any] = []
    flowclf.registry.nodes.register("freia_split")(Split)
    for shape in SHAPES:
        if not (folder / shape).exists():
            flowclf.save(build(shape, seed=1), folder / shape)
        expected = function(build(shape, seed=1))
        for round_ in range(count):
            kept.append([object() for _ in range(7 * round_ + 1)])
            torch.testing.assert_close(function(flowclf.load(folder / shape)), expected, rtol=0, atol=0)
            again = build(shape)
            again.load_state_dict(flowclf.load(folder / shape).state_dict())
            torch.testing.assert_close(function(again), expected, rtol=0, atol=0)


if __name__ == "__main__":
    check(Path(sys.argv[1]), int(sys.argv[2]))
