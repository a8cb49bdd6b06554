"""How a graph is run: what is called, what is kept, what is left alone, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import tiny
import torch
from FrEIA import modules as freia
from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import InvertibleModule
from reversible_cases import chain, check, conv, dense, distance, draw_for, outcome, settled
from torch import Tensor, nn

from flowclf import InvertibleClassifier, nodes, reversible
from flowclf.errors import GraphError, UsageError
from flowclf.reversible import Recompute, exactness

Shapes = Iterable[Sequence[int]]


class Affine(InvertibleModule):
    """A node of one's own: elementwise, with an inverse that is off by ``error``."""

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, error: float = 0.0) -> None:
        super().__init__(list(dims_in), list(dims_c or []))
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.error = error
        self.reversals = 0

    def forward(
        self, x_or_z: Iterable[Tensor], c: Iterable[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor, ...], Any]:
        (value,) = x_or_z
        volume = self.scale * value[0].numel()
        if rev:
            self.reversals += 1
            return (value * (-self.scale).exp() + self.error,), -volume
        return (value * self.scale.exp(),), volume

    def output_dims(self, input_dims: Shapes) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in input_dims]


class OneWay(Affine):
    """Has no inverse."""

    def forward(self, *args: Any, rev: bool = False, **options: Any) -> tuple[tuple[Tensor, ...], Any]:
        if rev:
            self.reversals += 1
            raise NotImplementedError("no way back")
        return super().forward(*args, **options)


def backward_once(model: nn.Module, graph: GraphINN) -> None:
    (x,), _ = draw_for(graph)
    z, log_det = model(x)
    (z.square().sum() + log_det.sum()).backward()


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("cls", [nodes.AdditiveCoupling, nodes.AffineCoupling, nodes.LogitCoupling])
def test_couplings_evaluate_their_subnet_once_on_the_way_back(cls: Any, swap: bool) -> None:
    arguments = {"classes": 3} if cls is nodes.LogitCoupling else {}
    graph = settled(chain((4, 3, 2), *([(cls, {"subnet": conv, "swap": swap, **arguments})] * 2)).double())
    calls: list[bool] = []
    for module in graph.module_list:
        module.subnet.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    (x,), _ = draw_for(graph)
    z, _ = Recompute(graph)(x)
    assert calls == [False, False]
    z.sum().backward()
    assert calls == [False, False, True, True]


def test_an_unknown_node_is_measured_and_inverted_where_it_is_exact() -> None:
    graph = chain((3,), (nodes.ActNorm, {}), (Affine, {}), (nodes.ActNorm, {})).double()
    module = graph.module_list[1]
    backward_once(Recompute(graph), graph)
    assert module.reversals == 2
    backward_once(Recompute(graph), graph)
    assert module.reversals == 3
    check(graph)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-3), (torch.float64, float("nan"))])
def test_an_unknown_node_keeps_its_input_where_its_inverse_is_approximate(dtype: torch.dtype, error: float) -> None:
    graph = chain((3,), (nodes.ActNorm, {}), (Affine, {"error": error})).to(dtype)
    module = graph.module_list[1]
    for _ in range(3):
        backward_once(Recompute(graph), graph)
    assert module.reversals == 1
    check(graph, 1e-9 if dtype == torch.float64 else 1e-5)


def test_a_node_that_becomes_inexact_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "INTERVAL", 4)
    graph = chain((3,), (Affine, {})).double()
    module = graph.module_list[0]
    backward_once(Recompute(graph), graph)
    module.error = 1e-6
    for _ in range(3):
        backward_once(Recompute(graph), graph)
    reversals = module.reversals
    for _ in range(3):
        check(graph)
    assert module.reversals == reversals + 1


def test_a_node_without_an_inverse_is_trained_all_the_same() -> None:
    graph = chain((3,), (nodes.ActNorm, {}), (OneWay, {}), (nodes.ActNorm, {})).double()
    check(graph)
    assert graph.module_list[1].reversals == 1


@pytest.mark.parametrize("exact", [True, False])
def test_a_declaration_is_believed_and_nothing_measured(exact: bool) -> None:
    graph = chain((3,), (nodes.ActNorm, {}), (Affine, {"error": 1e-14})).double()
    module = graph.module_list[1]
    module.exact_inverse = exact
    check(graph)
    assert module.reversals == (1 if exact else 0)


def test_copies_are_measured_on_their_own() -> None:
    graph = chain((3,), (Affine, {})).double()
    backward_once(Recompute(graph), graph)
    module = copy.deepcopy(graph.module_list[0])
    assert graph.module_list[0] in exactness._measured
    assert module not in exactness._measured


def test_stock_nodes_with_approximate_inverses_are_never_inverted() -> None:
    spline = nodes.NflowsTransform
    for shape, cls, arguments in [
        ((4,), freia.InvertibleSigmoid, {}),
        ((4,), freia.AllInOneBlock, {"subnet_constructor": dense, "permute_soft": True}),
        ((4,), spline, {"transform": __import__("reversible_cases")._spline(4)}),
    ]:
        graph = settled(chain(shape, (nodes.ActNorm, {}), (cls, arguments)).double())
        check(graph)
        kinds: list[bool] = []

        def note(_: object, args: object, kwargs: dict[str, bool], seen: list[bool] = kinds) -> None:
            seen.append(kwargs["rev"])

        graph.module_list[1].register_forward_pre_hook(note, with_kwargs=True)
        backward_once(Recompute(graph), graph)
        assert not any(kinds)


@pytest.mark.parametrize(("every", "inverted"), [(None, {0, 1, 2, 3, 4, 5}), (1, {0}), (2, {0, 1, 3, 5}), (3, {0, 1, 2, 4, 5})])
def test_keep_every(every: int | None, inverted: set[int]) -> None:
    graph = chain((3,), *([(Affine, {})] * 6)).double()
    for module in graph.module_list:
        module.exact_inverse = True
    backward_once(Recompute(graph, keep_every=every), graph)
    assert {index for index, module in enumerate(graph.module_list) if module.reversals} == inverted
    check(graph, keep_every=every)


def test_what_is_kept_stops_the_drift() -> None:
    """An inverse that is wrong by 1e-3 is wrong by no more than that over one block."""
    errors = []
    for every in (None, 4, 1):
        torch.manual_seed(0)
        graph = chain((3,), *([(Affine, {"error": 1e-3}), (nodes.AdditiveCoupling, {"subnet": dense})] * 8)).double()
        with torch.no_grad():
            for parameter in graph.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in graph.module_list:
            module.exact_inverse = True
        values, _ = draw_for(graph)
        wanted = list(graph.parameters())
        _, stored = outcome(graph, values, [], parameters=wanted)
        _, found = outcome(Recompute(graph, keep_every=every), values, [], parameters=wanted)
        errors.append(distance(found, stored))
    assert errors[0] > 3 * errors[1] > 0
    assert errors[2] < 1e-3 * errors[0] or errors[2] < errors[1]


def everything(graph: GraphINN) -> list[Tensor]:
    return [*graph.parameters(), *graph.buffers()]


@pytest.mark.parametrize(
    "specs",
    [
        [(freia.HaarUpsampling, {"rebalance": 0.5}), (freia.HaarDownsampling, {"rebalance": 0.5})],
        [(freia.HaarUpsampling, {}), (freia.HaarDownsampling, {"order_by_wavelet": True})],
        [(freia.Flatten, {})],
        [(freia.Reshape, {"output_dims": (2, 2, 8)})],
        [(nodes.ActNorm, {}), (nodes.AdditiveCoupling, {"subnet": conv}), (freia.Flatten, {})],
    ],
    ids=["wavelets", "wavelets by kind", "flatten", "reshape", "coupling"],
)
def test_the_callers_tensors_are_left_alone(specs: list[tuple[Any, dict[str, Any]]]) -> None:
    graph = settled(chain((4, 4, 2), *specs).double())
    (x,), _ = draw_for(graph)
    kept, versions = [value.clone() for value in (x, *everything(graph))], [value._version for value in (x, *everything(graph))]
    z, _ = Recompute(graph)(x)
    z_before, version = z.detach().clone(), z._version
    z.square().sum().backward(retain_graph=True)
    z.sum().backward()
    assert torch.equal(z, z_before)
    assert z._version == version
    assert all(map(torch.equal, (x, *everything(graph)), kept))
    assert [value._version for value in (x, *everything(graph))] == versions
    assert z.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_outputs_may_be_changed_when_nobody_goes_back_from_them() -> None:
    source = InputNode(4, name="input")
    split = Node(source, freia.Split, {"section_sizes": [1, 3]}, name="split")
    graph = GraphINN([source, split, OutputNode(split.out0, name="a"), OutputNode(split.out1, name="b")])
    x = torch.randn(2, 4, requires_grad=True)
    (a, b), _ = Recompute(graph)(x)
    a.add_(1)
    b.mul_(2)
    assert torch.equal(x[:, 1:], b / 2)


def test_an_output_changed_in_place_is_noticed() -> None:
    graph = settled(chain((3,), (nodes.ActNorm, {})))
    (x,), _ = draw_for(graph)
    z, _ = Recompute(graph)(x)
    loss = z.sum()
    z.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def forked() -> GraphINN:
    source = InputNode(6, name="input")
    first = Node(source, nodes.AffineCoupling, {"subnet": dense}, name="first")
    split = Node(first, freia.Split, {"section_sizes": [2, 4]}, name="split")
    left = Node(split.out0, nodes.AffineCoupling, {"subnet": dense}, name="left")
    right = Node(split.out1, nodes.AdditiveCoupling, {"subnet": dense}, name="right")
    return settled(GraphINN([source, first, split, left, right, OutputNode(left, name="a"), OutputNode(right, name="b")]).double())


@pytest.mark.parametrize("use", [(True, False, False), (False, True, False), (False, False, True), (True, False, True)])
def test_unused_outputs(use: tuple[bool, bool, bool]) -> None:
    graph = forked()
    (x,), _ = draw_for(graph)
    found = {}
    for name, model in (("store", graph), ("recompute", Recompute(graph))):
        (a, b), log_det = model(x)
        loss = sum((value.square().sum() for value, used in zip((a, b, log_det), use, strict=True) if used), torch.zeros(()))
        found[name] = torch.autograd.grad(loss, [x, *graph.parameters()], allow_unused=True)
    assert distance(found["recompute"], found["store"]) <= 1e-9


def test_gradients_accumulate_over_passes_in_any_order() -> None:
    graph = forked()
    batches = [draw_for(graph)[0] for _ in range(3)]
    found = {}
    for name, model in (("store", graph), ("recompute", Recompute(graph))):
        graph.zero_grad()
        losses = [model(batch)[0][0].square().sum() + model(batch)[1].sum() for batch in batches]
        losses[1].backward()
        (losses[2] + losses[0]).backward()
        found[name] = [parameter.grad for parameter in graph.parameters()]
    assert distance(found["recompute"], found["store"]) <= 1e-9


def test_a_graph_may_be_retained_and_is_gone_otherwise() -> None:
    graph = forked()
    (x,), _ = draw_for(graph)
    (a, _), _ = Recompute(graph)(x)
    first = torch.autograd.grad(a.sum(), list(graph.module_list[0].parameters()), retain_graph=True)
    second = torch.autograd.grad(a.sum(), list(graph.module_list[0].parameters()))
    assert all(map(torch.equal, first, second))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(a.sum(), list(graph.module_list[0].parameters()))


def test_a_gradient_of_a_gradient_is_refused() -> None:
    graph = forked()
    (x,), _ = draw_for(graph)
    (a, _), _ = Recompute(graph)(x)
    with pytest.raises(UsageError, match=r"create_graph.*'store'"):
        torch.autograd.grad(a.sum(), x, create_graph=True)


def test_without_gradient_nothing_is_kept() -> None:
    graph = forked()
    (x,), _ = draw_for(graph)
    with torch.no_grad():
        (a, b), log_det = Recompute(graph)(x)
    (c, d), other = graph(x)
    assert all(map(torch.equal, (a, b, log_det), (c, d, other)))
    graph.requires_grad_(False)
    (a, _), log_det = Recompute(graph)(x.detach())
    assert not a.requires_grad
    assert not log_det.requires_grad


def test_outputs_ask_for_a_gradient_as_stored_ones_do() -> None:
    source = InputNode(4, name="input")
    split = Node(source, freia.Split, {"section_sizes": [2, 2]}, name="split")
    left = Node(split.out0, nodes.ActNorm, {}, name="left")
    graph = GraphINN([source, split, left, OutputNode(left, name="a"), OutputNode(split.out1, name="b")])
    (a, b), _ = Recompute(graph)(torch.randn(2, 4))
    assert a.requires_grad
    assert not b.requires_grad


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("jac", [False, True])
def test_calls_are_those_of_a_graph(force: bool, jac: bool) -> None:
    source = InputNode(3, name="input")
    node = Node(source, nodes.AffineCoupling, {}, name="node")
    graph = settled(GraphINN([source, node, OutputNode(node, name="output")], force_tuple_output=force))
    (x,), _ = draw_for(graph)
    model = Recompute(graph)
    for call in ((x,), (x, None, True)):
        expected, expected_log_det = graph(*call, jac=jac)
        found, log_det = model(*call, jac=jac)
        assert type(found) is type(expected)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(log_det, expected_log_det)
    assert model(x, intermediate_outputs=True)[0].keys() == graph(x, intermediate_outputs=True)[0].keys()


def test_graphs_that_cannot_be_inverted_are_refused() -> None:
    source = InputNode(4, name="input")
    split = Node(source, freia.Split, {"section_sizes": [2, 2]}, name="split")
    twice = Node([split.out0, split.out0, split.out1], freia.Concat, {}, name="concat")
    graph = GraphINN([source, split, twice, OutputNode(twice, name="output")])
    with pytest.raises(GraphError, match=r"output 0 of node 'split', shape \(2,\), is used 2 times"):
        Recompute(graph)(torch.randn(2, 4, requires_grad=True))
    graph = chain((4,), (nodes.ActNorm, {}))
    with pytest.raises(GraphError, match="takes 1 values, found 2"):
        reversible.execute(graph, (torch.randn(2, 4), torch.randn(2, 4)))
    with pytest.raises(UsageError, match="keep_every must be at least 1, or None, found 0"):
        reversible.execute(graph, (torch.randn(2, 4),), keep_every=0)


def test_errors_of_nodes_pass_as_they_are() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("no memory")

    graph = chain((4,), (nodes.AdditiveCoupling, {"subnet": lambda a, b: Failing()}))
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        Recompute(graph)(torch.randn(2, 4, requires_grad=True))


@pytest.fixture
def classifier() -> InvertibleClassifier:
    return tiny.image_classifier().double()


def test_a_classifier_recomputes_when_told_to(classifier: InvertibleClassifier) -> None:
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    found = {}
    for name in ("store", "recompute"):
        classifier.activations = name
        loss = -classifier.log_prob(x).mean() + classifier(x).logits.square().mean()
        found[name] = torch.autograd.grad(loss, [x, *classifier.parameters()])
    assert distance(found["recompute"], found["store"]) <= 1e-9
    z = classifier(x)
    back = classifier.inverse(z.logits.detach().requires_grad_(), z.nuisance.detach())
    assert type(back.grad_fn).__name__ == "_RecomputedBackward"


def test_a_context_leaves_the_classifier_as_it_was(classifier: InvertibleClassifier) -> None:
    with reversible.recompute(classifier, keep_every=2):
        assert (classifier.activations, classifier.keep_every) == ("recompute", 2)
        encoding = classifier(torch.rand(2, 1, 8, 8, dtype=torch.float64))
    assert (classifier.activations, classifier.keep_every) == ("store", None)
    encoding.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.graph.module_list[1].parameters())


def test_a_classifier_refuses_other_words(classifier: InvertibleClassifier) -> None:
    classifier.activations = "forget"  # type: ignore[assignment]
    with pytest.raises(UsageError, match="'store' or 'recompute', found 'forget'"):
        classifier(torch.rand(2, 1, 8, 8, dtype=torch.float64))
