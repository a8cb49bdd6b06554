"""Recomputed activations give the gradients that stored ones give: over random graphs, and node by node."""

from __future__ import annotations

import pytest
import torch
from FrEIA import modules as freia
from FrEIA.framework import GraphINN
from hypothesis import given, settings
from hypothesis import strategies as st
from reversible_cases import CONDITIONAL, chain, check, conv, dense, distance, draw_for, graphs, makers, outcome, settled

from flowclf import nodes
from flowclf.reversible import Recompute

SHAPES = {"vector": (6,), "image": (4, 4, 2)}


@settings(max_examples=60)
@given(graph=graphs(), keep_every=st.sampled_from([None, None, 1, 2]))
def test_random_graphs(graph: GraphINN, keep_every: int | None) -> None:
    check(graph, keep_every=keep_every)


@pytest.mark.parametrize(
    ("shape", "kind"), [(shape, kind) for shape in SHAPES.values() for kind in sorted(makers(shape))], ids=lambda value: str(value)
)
def test_each_node_between_two_others(shape: tuple[int, ...], kind: str) -> None:
    cls, arguments = makers(shape)[kind]
    graph = chain(shape, (nodes.ActNorm, {}), (cls, arguments), (nodes.ActNorm, {}))
    check(settled(graph.double()))


@pytest.mark.parametrize("kind", CONDITIONAL)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_reach_conditions(shape: tuple[int, ...], kind: str) -> None:
    graph = chain(shape, (nodes.ActNorm, {}), makers(shape)[kind], conditions={1: (2, *shape[1:])})
    check(settled(graph.double()))


def test_a_node_of_the_condition_alone() -> None:
    graph = chain((4,), (freia.ConditionalAffineTransform, {"subnet_constructor": dense}), conditions={0: (4,)})
    check(settled(graph.double()))


@pytest.mark.filterwarnings("ignore:Using.*non-full backward hook:FutureWarning")
def test_a_node_with_a_backward_hook() -> None:
    """FrEIA's OrthogonalTransform counts backward passes to correct its matrix; they are counted once."""
    graph = settled(chain((4,), (nodes.ActNorm, {}), (freia.OrthogonalTransform, {"correction_interval": 100})).double())
    check(graph)
    module = graph.node_list[2].module
    values, conditions = draw_for(graph)
    before = module.back_counter
    outcome(Recompute(graph), values, conditions, parameters=list(graph.parameters()))
    assert module.back_counter == before + 1


def test_a_node_that_differentiates_on_its_way_and_draws_random_numbers() -> None:
    """FrEIA's IResNetLayer estimates its log-determinant by random vector-Jacobian products."""
    graph = settled(chain((4,), (nodes.ActNorm, {}), (freia.IResNetLayer, {"jacobian_iterations": 3})).double())
    for parameter in graph.parameters():
        parameter.data *= 0.3
    check(graph)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_other_direction(shape: tuple[int, ...]) -> None:
    subnet = dense if len(shape) == 1 else conv
    stock = {"subnet_constructor": subnet}
    graph = chain(
        shape,
        (nodes.ActNorm, {}),
        (freia.GLOWCouplingBlock, stock),
        (nodes.InvertibleConv1x1, {}),
        (nodes.AffineCoupling, {"subnet": subnet}),
        (nodes.LogitReadout, {"subnet": subnet, "classes": 3}),
        (nodes.LogitCoupling, {"subnet": subnet, "classes": 3}),
        (nodes.AdditiveCoupling, {"subnet": subnet}),
    )
    settled(graph.double())
    (x,), _ = draw_for(graph)
    wanted = list(graph.parameters())
    expected, stored = outcome(lambda z, c: graph(z, rev=True), [x], [], parameters=wanted)
    found, recomputed = outcome(lambda z, c: Recompute(graph)(z, rev=True), [x], [], parameters=wanted)
    torch.testing.assert_close(found[0], expected[0])
    assert distance(recomputed, stored) <= 1e-9


def test_float32_is_as_near_to_float64_as_stored_activations_are() -> None:
    block = [(nodes.ActNorm, {}), (nodes.InvertibleConv1x1, {}), (nodes.AffineCoupling, {"subnet": conv})]
    graph = settled(chain((4, 4, 4), *(block * 8)).double())
    values, _ = draw_for(graph)
    _, exact = outcome(graph, values, [], parameters=list(graph.parameters()))
    graph.float()
    values = [value.detach().float().requires_grad_() for value in values]
    found = {}
    for name, model in (("store", graph), ("recompute", Recompute(graph)), ("kept", Recompute(graph, keep_every=3))):
        _, grads = outcome(model, values, [], parameters=list(graph.parameters()))
        found[name] = distance(grads, exact)
    assert found["store"] <= 1e-4
    assert found["recompute"] <= 1e-3
    assert found["kept"] <= 1e-3


def test_subnets_in_half_precision_are_as_near_as_with_stored_activations() -> None:
    block = [(nodes.InvertibleConv1x1, {"parametrization": "orthogonal"}), (nodes.AdditiveCoupling, {"subnet": conv})]
    graph = settled(chain((4, 4, 4), *(block * 4)).double())
    values, _ = draw_for(graph)
    _, exact = outcome(graph, values, [], parameters=list(graph.parameters()))
    graph.float()
    nodes.set_subnet_dtype(graph, torch.bfloat16)
    values = [value.detach().float().requires_grad_() for value in values]
    _, stored = outcome(graph, values, [], parameters=list(graph.parameters()))
    _, recomputed = outcome(Recompute(graph), values, [], parameters=list(graph.parameters()))
    assert 1e-4 < distance(stored, exact) < 0.1
    assert distance(recomputed, exact) <= 1.2 * distance(stored, exact)


def test_deep_graphs_do_not_drift_in_double() -> None:
    couplings = [(nodes.AdditiveCoupling, {"subnet": dense}), (nodes.AffineCoupling, {"subnet": dense, "swap": True})]
    block = [(nodes.ActNorm, {}), *couplings]
    graph = chain((4,), *(block * 40)).double()
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    check(graph)
