"""Graphs: every mistake is refused when the graph is built, with the node's name and its shapes; FrEIA's nodes work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import FrEIA.framework as ff
import FrEIA.modules as fm
import pytest
import tiny
import torch
from FrEIA.modules import InvertibleModule
from torch import Tensor, nn

import flowclf
from flowclf import InvertibleClassifier, build_graph, registry
from flowclf.component_schema.specs import MAX_NODES
from flowclf.errors import GraphError, RegistryError, UsageError
from flowclf.graph import (
    checked_graph,
    describe_graph,
    execute,
    graph_from_description,
    head_of,
    node_rows,
)
from flowclf.nodes import ActNorm, AdditiveCoupling, AffineCoupling, FactorOut, FlowNode, InvertibleConv1x1, SplitHead, Squeeze
from flowclf.subnets import takes_vectors

AFFINE = "affine_coupling"


def nested(depth: int) -> list[Any]:
    nodes: list[Any] = ["actnorm"]
    for _ in range(depth):
        nodes = [{"repeat": 1, "nodes": nodes}]
    return nodes


SPEC_MISTAKES: dict[str, tuple[Any, list[str]]] = {
    "odd size": (["squeeze", "squeeze", "squeeze", "squeeze", "split_head"], ["4_squeeze", "(64, 1, 1)", "2"]),
    "squeeze by 3": ([{"squeeze": {"factor": 3}}, "split_head"], ["1_squeeze", "(1, 8, 8)", "3"]),
    "one channel": ([AFFINE, "split_head"], ["1_affine_coupling", "(1, 8, 8)"]),
    "keep too much": (["squeeze", {"factor_out": {"keep": 4}}, "split_head"], ["2_factor_out", "(4, 4, 4)", "4"]),
    "fewer channels than logits": (["logit_coupling", "split_head"], ["1_logit_coupling", "(1, 8, 8)", "4"]),
    "more classes than dimensions": (
        [*[{"repeat": 1, "nodes": ["squeeze", {"factor_out": {"keep": 1}}]}] * 3, "split_head"],
        ["7_split_head", "(1, 1, 1)", "4 classes", "(3, 4, 4)"],
    ),
    "no head": (["squeeze", "actnorm"], ["split_head", "2_actnorm", "(4, 4, 4)"]),
    "empty": ([], ["nodes: ", "at least one node", "an empty list"]),
    "head not last": (["split_head", "actnorm"], ["1_split_head", "1 nodes"]),
    "two heads": (["split_head", "split_head"], ["1_split_head"]),
    "unknown node": (["squeeze", "actnrm", "split_head"], ["nodes[1]", "'actnrm'", "'actnorm'"]),
    "unknown node in a repeat": (
        [{"repeat": 2, "nodes": ["squeeze", "squeze"]}, "split_head"],
        ["nodes[0].nodes[1]", "'squeze'", "'squeeze'"],
    ),
    "unknown argument": ([{"actnorm": {"minstd": 1.0}}, "split_head"], ["1_actnorm", "'minstd'", "'min_std'"]),
    "unknown argument of a subnet": (
        ["squeeze", {AFFINE: {"subnet": {"conv": {"widht": 8}}}}, "split_head"],
        ["2_affine_coupling", "subnet.conv", "'widht'", "'width'"],
    ),
    "unknown transformer": (["squeeze", {"coupling": {"transformer": "afine"}}, "split_head"], ["2_coupling", "afine", "'affine'"]),
    "unknown argument of a transformer": (
        ["squeeze", {"coupling": {"transformer": {"rational_quadratic": {"bin": 8}}}}, "split_head"],
        ["2_coupling", "transformer.rational_quadratic", "'bin'", "'bins'"],
    ),
    "no bins": (
        ["squeeze", {"coupling": {"transformer": {"rational_quadratic": {"bins": 0}}}}, "split_head"],
        ["2_coupling", "transformer.rational_quadratic.bins", "greater than or equal to 1"],
    ),
    "unknown subnet": (["squeeze", {AFFINE: {"subnet": "cnov"}}, "split_head"], ["2_affine_coupling", "cnov", "'conv'"]),
    "what FrEIA passes": ([{"actnorm": {"dims_c": [[3]]}}, "split_head"], ["1_actnorm", "dims_c"]),
    "a number for a name": ([{"actnorm": {3: 4}}, "split_head"], ["1_actnorm", "'3'"]),
    "missing argument": (["nflows", "split_head"], ["1_nflows", "transform"]),
    "wrong type": (["squeeze", {AFFINE: {"bound": "1.5"}}, "split_head"], ["2_affine_coupling", "bound", "'1.5'"]),
    "a truth for a number": ([{"squeeze": {"factor": True}}, "split_head"], ["1_squeeze", "factor", "true"]),
    "a fraction for an integer": ([{"squeeze": {"factor": 2.0}}, "split_head"], ["1_squeeze", "factor", "2.0"]),
    "zero": ([{"squeeze": {"factor": 0}}, "split_head"], ["1_squeeze", "factor", "greater than or equal to 1"]),
    "negative": ([{"split_head": {"logit_scale": -1}}], ["1_split_head", "logit_scale", "-1"]),
    "not a choice": (
        [{"invertible_conv1x1": {"parametrization": "qr"}}, "split_head"],
        ["1_invertible_conv1x1", "'lu'", "'orthogonal'", "'qr'"],
    ),
    "not a number": ([{"actnorm": {"min_std": float("nan")}}, "split_head"], ["1_actnorm", "min_std", "nan"]),
    "not a transform": ([{"nflows": {"transform": 3}}, "split_head"], ["1_nflows", "transform", "3"]),
    "a module of no use": ([{"nflows": {"transform": nn.Linear(2, 2)}}, "split_head"], ["1_nflows", "Linear"]),
    "list of arguments": ([{"actnorm": [1]}, "split_head"], ["nodes[0]", "actnorm", "list"]),
    "two names": ([{"actnorm": {}, "squeeze": {}}, "split_head"], ["nodes[0]", "one name"]),
    "nothing": ([None, "split_head"], ["nodes[0]", "null"]),
    "not a list": ("squeeze", ["expected a list", "'squeeze'"]),
    "a mapping": ({"squeeze": {}}, ["expected a list", "a mapping"]),
    "repeat without nodes": ([{"repeat": 2}, "split_head"], ["nodes[0]", "repeat and nodes"]),
    "repeat with more": ([{"repeat": 2, "nodes": [], "times": 2}, "split_head"], ["nodes[0]", "times"]),
    "repeat with a number for a key": ([{"repeat": 2, 3: 4}, "split_head"], ["nodes[0]", "unknown key 3"]),
    "repeat of text": ([{"repeat": "2", "nodes": []}, "split_head"], ["nodes[0]", "'2'"]),
    "repeat of truth": ([{"repeat": True, "nodes": []}, "split_head"], ["nodes[0]", "true"]),
    "repeat 0": ([{"repeat": 0, "nodes": ["squeeze"]}, "split_head"], ["nodes[0].repeat", "at least 1", "0"]),
    "negative repeat": ([{"repeat": -1, "nodes": []}, "split_head"], ["nodes[0]", "-1"]),
    "repeat of a name": ([{"repeat": 2, "nodes": "actnorm"}, "split_head"], ["nodes[0].nodes", "expected a list", "'actnorm'"]),
    "too many": ([{"repeat": MAX_NODES + 1, "nodes": ["actnorm"]}, "split_head"], ["nodes: ", str(MAX_NODES)]),
    "too many, nested": (
        [{"repeat": 10**6, "nodes": [{"repeat": 10**6, "nodes": ["actnorm"]}]}],
        ["nodes: ", str(MAX_NODES), str(10**12)],
    ),
    "too many, listed": (["actnorm"] * (MAX_NODES + 1), [str(MAX_NODES)]),
    "too deep": (nested(2000), ["nested"]),
}


@pytest.mark.parametrize(("nodes", "words"), SPEC_MISTAKES.values(), ids=SPEC_MISTAKES)
def test_mistakes_in_specs_are_refused_with_name_and_shapes(nodes: Any, words: list[str]) -> None:
    started = time.process_time()
    with pytest.raises((GraphError, RegistryError)) as caught:
        build_graph((1, 8, 8), nodes, classes=4)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message) < 500
    assert time.process_time() - started < 2


@pytest.mark.parametrize("shape", [8, (8, 8), (0, 8, 8), (1, 8.0, 8), "abc", (1, 2, 3, 4), (), None])
def test_input_shapes_that_cannot_be_are_refused(shape: Any) -> None:
    with pytest.raises(GraphError, match="input_shape"):
        build_graph(shape, ["split_head"], classes=2)


@pytest.mark.parametrize("classes", [1, 0, -3, "4", 4.0, None, 64, 1000])
def test_numbers_of_classes_that_cannot_be_are_refused(classes: Any) -> None:
    with pytest.raises(GraphError, match="1_split_head"):
        build_graph((1, 8, 8), ["split_head"], classes=classes)


def test_a_node_that_loses_dimensions_is_refused(scratch_registries: None) -> None:
    @registry.nodes.register("lossy")
    class Lossy(ActNorm):
        def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
            return (shape[0] - 1, *shape[1:])

    with pytest.raises(GraphError, match=r"2_lossy.*\(4, 4, 4\).*64 elements.*\(3, 4, 4\).*48"):
        build_graph((1, 8, 8), ["squeeze", "lossy", "split_head"], classes=4)


def test_a_node_of_two_outputs_cannot_be_in_a_list(scratch_registries: None) -> None:
    registry.nodes.register("split")(fm.Split)
    nodes = ["squeeze", {"split": {"section_sizes": [2, 2], "dim": 0}}, "split_head"]
    with pytest.raises(GraphError, match=r"2_split.*2 outputs.*`branches = True`"):
        build_graph((1, 8, 8), nodes, classes=4)


def test_a_node_of_ones_own_may_branch_and_a_subnet_of_ones_own_take_vectors(scratch_registries: None) -> None:
    @registry.nodes.register("thirds")
    class Thirds(FlowNode):
        """One third of the channels goes on, two leave as branches of their own."""

        branches = True

        def forward(self, x_or_z: Any, c: Any = None, rev: bool = False, jac: bool = True) -> Any:
            values = tuple(x_or_z)
            return (torch.cat(values, 1),) if rev else values[0].chunk(3, 1), values[0].new_zeros(len(values[0]))

        def output_dims(self, input_dims: Any) -> list[tuple[int, ...]]:
            ((channels, *size),) = input_dims
            return [(channels // 3, *size)] * 3

    @registry.subnets.register("linear")
    @takes_vectors
    def linear(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Module:
        return nn.Linear(channels_in, channels_out, bias=bias)

    coupling = {AFFINE: {"subnet": {"linear": {"bias": False}}}}
    clf = flowclf.build_classifier((3, 4, 4), ["squeeze", coupling, "thirds", coupling, "split_head"], classes=4)
    rows = clf.node_rows()
    assert rows[-1].shapes_in == ((4, 2, 2),) * 3
    assert [rows[index].parameters for index in (1, 3)] == [24 * 48, 8 * 16]
    x = torch.randn(2, 3, 4, 4)
    encoding = clf(x)
    torch.testing.assert_close(clf.inverse(encoding.logits, encoding.nuisance), x, atol=1e-4, rtol=0)
    assert [tuple(maps.shape) for maps in clf.nuisance_maps(encoding.nuisance)] == [(2, 4, 2, 2)] * 3
    with pytest.raises(GraphError, match=r"subnet linear takes vectors \(D,\), found feature maps"):
        build_graph((3, 4, 4), ["squeeze", {"logit_readout": {"subnet": "linear"}}, "split_head"], classes=4)


def test_specs_are_chained_repeated_and_factored_out() -> None:
    graph = build_graph((1, 8, 8), tiny.IMAGE_NODES, classes=4)
    rows = node_rows(graph)
    assert [row.kind for row in rows] == [
        "squeeze",
        *["actnorm", "invertible_conv1x1", "affine_coupling"] * 2,
        "factor_out",
        "squeeze",
        "actnorm",
        "logit_readout",
        *["logit_coupling"] * 2,
        "split_head",
    ]
    assert [row.name for row in rows][:3] == ["1_squeeze", "2_actnorm", "3_invertible_conv1x1"]
    assert rows[0].shapes_in == ((1, 8, 8),)
    assert rows[0].shapes_out == ((4, 4, 4),)
    assert rows[-1].shapes_in == ((8, 2, 2), (2, 4, 4))
    assert rows[-1].shapes_out == ((4,), (60,))
    assert [row.parameters for row in rows[:3]] == [0, 8, 36]
    assert head_of(graph).classes == 4


def test_a_head_may_set_its_own_number_of_classes() -> None:
    graph = build_graph((1, 4, 4), [{"split_head": {"classes": 3}}], classes=10)
    assert [tuple(shape) for shape in graph.global_out_shapes] == [(3,), (13,)]
    assert len(node_rows(graph)) == 1


def test_the_callers_specs_are_left_as_they_are() -> None:
    nodes = [{"actnorm": {}}, {"split_head": {"logit_scale": 2.0}}]
    kept = json.dumps(nodes)
    build_graph((1, 4, 4), nodes, classes=3)
    assert json.dumps(nodes) == kept


# Graphs made by hand.


def conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, channels_out, 3, padding=1))


def linear(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 8), nn.Tanh(), nn.Linear(8, channels_out))


def ends(head: ff.Node) -> list[ff.OutputNode]:
    return [ff.OutputNode(head.out0, name="logits"), ff.OutputNode(head.out1, name="nuisance")]


def head_on(inputs: Any, classes: int = 3) -> ff.Node:
    return ff.Node(inputs, SplitHead, {"classes": classes}, name="head")


def used_twice() -> list[ff.Node]:
    source = ff.InputNode(4, 4, 4, name="input")
    first = ff.Node(source, FactorOut, {}, name="halve")
    left = ff.Node(first.out0, ActNorm, {}, name="left")
    right = ff.Node(first.out0, ActNorm, {}, name="right")
    head = head_on([left.out0, right.out0, first.out1])
    return [source, first, left, right, head, *ends(head)]


def not_used() -> list[ff.Node]:
    source = ff.InputNode(4, 4, 4, name="input")
    first = ff.Node(source, FactorOut, {}, name="halve")
    head = head_on(first.out0)
    return [source, first, head, *ends(head)]


def nuisance_not_used() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    head = head_on(source)
    return [source, head, ends(head)[0]]


def head_for_both() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    head = head_on(source)
    return [source, head, ff.OutputNode(head, name="logits"), ff.OutputNode(head, name="nuisance")]


def no_head() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    node = ff.Node(source, FactorOut, {}, name="halve")
    return [source, node, *ends(node)]


def head_not_last() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    head = head_on(source)
    after = ff.Node(head.out1, ActNorm, {}, name="after")
    return [source, head, after, ff.OutputNode(head.out0, name="logits"), ff.OutputNode(after, name="nuisance")]


def outputs_in_the_wrong_order() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    head = head_on(source)
    return [source, head, *reversed(ends(head))]


def two_heads() -> list[ff.Node]:
    source = ff.InputNode(12, name="input")
    halves = ff.Node(source, FactorOut, {}, name="halve")
    heads = [ff.Node((halves, index), SplitHead, {"classes": 2}, name=f"head {index}") for index in (0, 1)]
    outputs = [ff.OutputNode((head, index), name=f"{head.name}.{index}") for head in heads for index in (0, 1)]
    return [source, halves, *heads, *outputs]


def two_inputs() -> list[ff.Node]:
    sources = [ff.InputNode(4, name="left"), ff.InputNode(5, name="right")]
    head = head_on([source.out0 for source in sources])
    return [*sources, head, *ends(head)]


def condition(listed: bool) -> list[ff.Node]:
    source, given = ff.InputNode(6, name="input"), ff.ConditionNode(3, name="given")
    node = ff.Node(source, AffineCoupling, {}, conditions=given, name="coupling")
    head = head_on(node)
    return [source, *([given] if listed else []), node, head, *ends(head)]


def same_names() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    first = ff.Node(source, ActNorm, {}, name="norm")
    second = ff.Node(first, ActNorm, {}, name="norm")
    head = head_on(second)
    return [source, first, second, head, *ends(head)]


def not_listed() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    first = ff.Node(source, ActNorm, {}, name="forgotten")
    head = head_on(first)
    return [source, head, *ends(head)]


def stranger() -> list[Any]:
    source = ff.InputNode(6, name="input")
    head = head_on(source)
    return [source, ActNorm([(6,)]), head, *ends(head)]


HAND_MISTAKES: dict[str, tuple[Callable[[], list[Any]], list[str]]] = {
    "used twice": (used_twice, ["halve", "(2, 4, 4)", "2 times", "left", "right"]),
    "not used": (not_used, ["output 1", "halve", "(2, 4, 4)", "not used"]),
    "nuisance not used": (nuisance_not_used, ["output 1", "head", "(3,)", "not used", "OutputNode((head, 1)) for the nuisances"]),
    "the head for both outputs": (head_for_both, ["output 0", "head", "used 2 times", "OutputNode((head, 1)) for the nuisances"]),
    "no head": (no_head, ["one SplitHead, found 0", "logits", "(3,)"]),
    "head not last": (head_not_last, ["head", "after"]),
    "wrong order": (outputs_in_the_wrong_order, ["outputs 0 and 1", "head"]),
    "two heads": (two_heads, ["found 2"]),
    "two inputs": (two_inputs, ["one input, found 2", "left", "right"]),
    "condition": (lambda: condition(True), ["given", "(3,)"]),
    "condition that is not listed": (lambda: condition(False), ["given", "(3,)"]),
    "same names": (same_names, ["2 nodes", "norm"]),
    "not listed": (not_listed, ["forgotten"]),
    "no node": (stranger, ["ActNorm"]),
    "empty": (list, ["one input, found 0"]),
}


@pytest.mark.parametrize(("nodes", "words"), HAND_MISTAKES.values(), ids=HAND_MISTAKES)
def test_mistakes_in_graphs_made_by_hand_are_refused(nodes: Callable[[], list[Any]], words: list[str]) -> None:
    with pytest.raises(GraphError) as caught:
        InvertibleClassifier(nodes())
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("nodes", [used_twice, two_inputs, no_head, lambda: condition(True), same_names, head_not_last])
def test_a_graph_that_freia_accepts_is_checked_too(nodes: Callable[[], list[Any]]) -> None:
    with pytest.raises(GraphError):
        InvertibleClassifier(ff.GraphINN(nodes()))


@pytest.mark.parametrize("thing", [3, None, "graph"])
def test_what_is_no_graph_is_refused(thing: Any) -> None:
    with pytest.raises((GraphError, TypeError)):
        checked_graph(thing)


def branched() -> list[ff.Node]:
    """FrEIA's own nodes: permutations, a split, a coupling on one branch, a join, a flattened part."""
    source = ff.InputNode(4, 6, 6, name="input")
    permute = ff.Node(source, fm.PermuteRandom, {"seed": 3}, name="permute")
    parts = ff.Node(permute, fm.Split, {"section_sizes": [1, 3], "dim": 0}, name="split")
    glow = ff.Node(parts.out1, fm.GLOWCouplingBlock, {"subnet_constructor": conv}, name="glow")
    joined = ff.Node([glow.out0, parts.out0], fm.Concat, {"dim": 0}, name="join")
    halves = ff.Node(joined, fm.Split, {"section_sizes": [2, 2], "dim": 0}, name="halves")
    early = ff.Node(halves.out1, fm.Flatten, {}, name="flat")
    down = ff.Node(halves.out0, fm.IRevNetDownsampling, {}, name="down")
    own = ff.Node(down, AdditiveCoupling, {}, name="own")
    head = head_on([own.out0, early.out0])
    return [source, permute, parts, glow, joined, halves, early, down, own, head, *ends(head)]


def chain(shape: tuple[int, ...], *modules: tuple[type[InvertibleModule], dict[str, Any]]) -> list[ff.Node]:
    nodes: list[ff.Node] = [ff.InputNode(*shape, name="input")]
    for index, (module, arguments) in enumerate(modules):
        nodes.append(ff.Node(nodes[-1], module, arguments, name=f"{index} {module.__name__}"))
    nodes.append(head_on(nodes[-1]))
    return [*nodes, *ends(nodes[-1])]


STOCK: dict[str, Callable[[], list[ff.Node]]] = {
    "branched": branched,
    "flatten": lambda: chain((2, 4, 4), (Squeeze, {}), (fm.Flatten, {}), (fm.GLOWCouplingBlock, {"subnet_constructor": linear})),
    "reshape": lambda: chain((2, 4, 4), (fm.Reshape, {"output_dims": (8, 2, 2)}), (InvertibleConv1x1, {})),
    "haar": lambda: chain((2, 4, 4), (fm.HaarDownsampling, {}), (fm.NICECouplingBlock, {"subnet_constructor": conv})),
    "rnvp": lambda: chain((6,), (fm.RNVPCouplingBlock, {"subnet_constructor": linear}), (fm.HouseholderPerm, {"n_reflections": 3})),
    "all in one": lambda: chain((6,), (fm.AllInOneBlock, {"subnet_constructor": linear})),
    "gin": lambda: chain((6,), (fm.GINCouplingBlock, {"subnet_constructor": linear}), (fm.ActNorm, {})),
}


@pytest.mark.filterwarnings("ignore:Using non-full backward hooks:FutureWarning")
@pytest.mark.parametrize("whole", [False, True], ids=["nodes", "GraphINN"])
@pytest.mark.parametrize("nodes", STOCK.values(), ids=STOCK)
def test_freias_own_nodes_make_a_classifier(nodes: Callable[[], list[ff.Node]], whole: bool) -> None:
    node_list = nodes()
    classifier = InvertibleClassifier(ff.GraphINN(node_list) if whole else node_list).double().eval()
    x = torch.randn(5, *classifier.input_shape, dtype=torch.float64)
    classifier(x)
    for parameter in classifier.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    encoding = classifier(x)
    assert encoding.logits.shape == (5, 3)
    assert encoding.nuisance.shape == (5, classifier.dimensions - 3)
    assert encoding.log_det.shape == (5,)
    torch.testing.assert_close(classifier.inverse(encoding.logits, encoding.nuisance), x, atol=1e-10, rtol=0)
    jacobian = torch.autograd.functional.jacobian(lambda point: torch.cat(classifier(point)[:2], dim=1)[0], x[:1])
    expected = torch.linalg.slogdet(jacobian.reshape(classifier.dimensions, -1)).logabsdet
    torch.testing.assert_close(encoding.log_det[0], expected, atol=1e-8, rtol=0)
    maps = classifier.nuisance_maps(encoding.nuisance)
    assert sum(value[0].numel() for value in maps) == classifier.dimensions
    assert torch.isfinite(classifier.log_prob(x)).all()
    assert "head" in repr(classifier)


def test_execute_does_what_graphinn_does() -> None:
    graph = tiny.randomize(build_graph((1, 8, 8), tiny.IMAGE_NODES, classes=4), 0.1)
    x = torch.randn(3, 1, 8, 8)
    expected, expected_log_det = graph(x)
    outputs, log_det = execute(graph, (x,))
    assert all(map(torch.equal, outputs, expected))
    torch.testing.assert_close(log_det, expected_log_det)
    expected, expected_log_det = graph(outputs, rev=True)
    (again,), log_det = execute(graph, outputs, rev=True)
    assert torch.equal(again, expected)
    torch.testing.assert_close(log_det, expected_log_det)
    assert execute(graph, (x,), log_det=False)[1] is None


def test_a_graph_whose_nodes_keep_volume_has_log_dets_of_zero() -> None:
    graph = build_graph((1, 4, 4), ["squeeze", "split_head"], classes=4)
    (logits, _), log_det = execute(graph, (torch.randn(3, 1, 4, 4),))
    assert torch.equal(log_det, torch.zeros(3))
    assert logits.shape == (3, 4)


def test_errors_of_a_node_come_out_as_they_are(scratch_registries: None) -> None:
    """FrEIA hides them in a RuntimeError, so that running out of memory could not be caught."""

    class Exhausted(ActNorm):
        def transform(self, x: Tensor, conditions: Any, log_det: bool) -> Any:
            raise torch.OutOfMemoryError("no memory left")

    registry.nodes.register("exhausted")(Exhausted)
    graph = build_graph((6,), ["exhausted", "split_head"], classes=3)
    with pytest.raises(torch.OutOfMemoryError):
        execute(graph, (torch.randn(2, 6),))


def test_scalar_log_dets_stay_in_double_precision(scratch_registries: None) -> None:
    class Third(ActNorm):
        def forward(self, x_or_z: Any, c: Any = None, rev: bool = False, jac: bool = True) -> Any:
            return tuple(x_or_z), (-1 if rev else 1) / 3

    registry.nodes.register("third")(Third)
    graph = build_graph((6,), ["third", "split_head"], classes=3).double()
    _, log_det = execute(graph, (torch.randn(2, 6, dtype=torch.float64),))
    assert log_det.tolist() == [1 / 3, 1 / 3]


# Descriptions.


def test_a_description_is_json_that_builds_the_same_graph() -> None:
    graph = build_graph((1, 8, 8), tiny.IMAGE_NODES, classes=4)
    again = graph_from_description(json.loads(json.dumps(describe_graph(graph))))
    assert node_rows(again) == node_rows(graph)
    again.load_state_dict(graph.state_dict(), strict=True)
    x = torch.randn(2, 1, 8, 8)
    assert all(map(torch.equal, execute(again, (x,))[0], execute(graph, (x,))[0]))


def test_a_graph_by_hand_of_registered_nodes_can_be_described() -> None:
    source = ff.InputNode(8, name="vector")
    parts = ff.Node(source, FactorOut, {"keep": 5}, name="halve")
    side = ff.Node(parts.out1, AffineCoupling, {"subnet": {"dense": {"width": 4}}}, name="side")
    head = head_on([parts.out0, side.out0])
    graph = checked_graph([source, parts, side, head, *ends(head)])
    description = describe_graph(graph)
    again = graph_from_description(json.loads(json.dumps(description)))
    assert describe_graph(again) == description
    assert sorted(node_rows(again), key=str) == sorted(node_rows(graph), key=str)


def test_what_is_not_registered_cannot_be_described() -> None:
    graph = checked_graph(branched())
    with pytest.raises(GraphError, match=r"'permute'.*FrEIA.*PermuteRandom.*not registered"):
        describe_graph(graph)


def test_a_function_for_a_subnet_cannot_be_described() -> None:
    graph = build_graph((6,), [{AFFINE: {"subnet": linear}}, "split_head"], classes=3)
    with pytest.raises(GraphError, match=r"'1_affine_coupling'.*'subnet'.*function"):
        describe_graph(graph)


def test_wrong_descriptions_raise_usage_errors_alone() -> None:
    description = describe_graph(build_graph((1, 8, 8), tiny.IMAGE_NODES, classes=4))
    text = json.dumps(description)
    for key in ("input", "nodes"):
        with pytest.raises(GraphError, match=key):
            graph_from_description({name: value for name, value in description.items() if name != key})
    for key in ("name", "kind", "arguments", "inputs"):
        broken = json.loads(text)
        del broken["nodes"][2][key]
        with pytest.raises(GraphError, match=key):
            graph_from_description(broken)
    broken = json.loads(text)
    broken["nodes"][1]["inputs"] = [["input", 0]]
    with pytest.raises(UsageError):
        graph_from_description(broken)
    broken = json.loads(text)
    broken["nodes"] = broken["nodes"] * MAX_NODES
    with pytest.raises(GraphError, match=str(MAX_NODES)):
        graph_from_description(broken)
