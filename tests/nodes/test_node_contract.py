"""What every registered node keeps: an exact inverse, autograd's log-determinant, shapes, gradients, copies, states."""

from __future__ import annotations

import copy

import pytest
import torch
from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import InvertibleModule
from hypothesis import given, settings
from hypothesis import strategies as st
from node_cases import CASES, Case, draw_values, flat, log_abs_det
from tiny import randomize
from torch import Tensor

from flowclf import registry
from flowclf.nodes import ActNorm

REGISTERED = registry.nodes.names()
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_registered_node_has_a_case() -> None:
    assert {case.kind for case in CASES.values()} == set(REGISTERED)


def test_cases_build_the_node_that_they_name() -> None:
    for case in CASES.values():
        node = case.build(case.example, case.conditions(case.example))
        assert registry.nodes.name_of(type(node)) == case.kind


def make(case: Case, shapes: list[tuple[int, ...]]) -> tuple[InvertibleModule, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The node in float64, randomised, with inputs and conditions."""
    conditions = case.conditions(shapes)
    node = case.build(shapes, conditions)
    randomize(node.double())
    return node, draw_values(shapes), draw_values(conditions)


@every_case
@settings(max_examples=8)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_inverse_and_log_det(case: Case, data: st.DataObject, seed: int) -> None:
    torch.manual_seed(seed)
    shapes = data.draw(case.shapes)
    node, x, c = make(case, shapes)
    with torch.no_grad():
        z, log_det = node(x, c=c)
        again, inverse_log_det = node(z, c=c, rev=True)
        target = draw_values([tuple(value.shape[1:]) for value in z])
        source, reverse_log_det = node(target, c=c, rev=True)
        back, _ = node(source, c=c)
    assert float((flat(again) - flat(x)).abs().max()) <= case.inverse_error
    assert float((flat(back) - flat(target)).abs().max()) <= case.inverse_error
    assert log_det.shape == (2,)
    assert log_det.dtype == torch.float64
    tolerance = {"rtol": 0.0, "atol": 1e-8}
    torch.testing.assert_close(inverse_log_det, -log_det, **tolerance)
    torch.testing.assert_close(log_det, log_abs_det(node, x, c, rev=False), **tolerance)
    torch.testing.assert_close(reverse_log_det, log_abs_det(node, target, c, rev=True), **tolerance)


@every_case
@settings(max_examples=5)
@given(data=st.data())
def test_output_dims(case: Case, data: st.DataObject) -> None:
    shapes = data.draw(case.shapes)
    node, x, c = make(case, shapes)
    z, _ = node(x, c=c, jac=False)
    assert [tuple(shape) for shape in node.output_dims(shapes)] == [tuple(value.shape[1:]) for value in z]


@every_case
def test_gradients_reach_every_parameter(case: Case) -> None:
    node, x, c = make(case, case.example)
    for rev in (False, True):
        node.zero_grad(set_to_none=True)
        values = node(x, c=c)[0] if rev else x
        outputs, log_det = node(tuple(value.detach().requires_grad_() for value in values), c=c, rev=rev)
        (flat(outputs).square().sum() + log_det.sum()).backward()
        without = [name for name, value in node.named_parameters() if value.grad is None or not value.grad.any()]
        assert not without


@every_case
def test_works_in_a_plain_graph_and_adds_up_under_composition(case: Case) -> None:
    """FrEIA's own GraphINN, made by hand: ActNorm before, the node, and an ActNorm after each of its outputs."""
    conditions = case.conditions(case.example)
    sources = [InputNode(*shape, name=f"input {index}") for index, shape in enumerate(case.example)]
    before = [Node(source, ActNorm, {}, name=f"before {source.name}") for source in sources]
    given_nodes = [ConditionNode(*shape, name=f"condition {index}") for index, shape in enumerate(conditions)]
    built: list[InvertibleModule] = []

    def factory(dims_in: list[tuple[int, ...]], dims_c: list[tuple[int, ...]] | None = None) -> InvertibleModule:
        built.append(case.build(list(dims_in), list(dims_c or [])))
        return built[-1]

    middle = Node([node.out0 for node in before], factory, {}, conditions=given_nodes, name="node")
    after = [Node((middle, index), ActNorm, {}, name=f"after {index}") for index in range(len(middle.output_dims))]
    ends = [OutputNode(node, name=f"output {index}") for index, node in enumerate(after)]
    graph = GraphINN([*sources, *given_nodes, *before, middle, *after, *ends], force_tuple_output=True)
    randomize(graph.double())
    x, c = draw_values(case.example), draw_values(conditions)
    with torch.no_grad():
        z, log_det = graph(x, c=c)
        again, inverse_log_det = graph(z, c=c, rev=True)
        total = torch.zeros(2, dtype=torch.float64)
        values = []
        for node, value in zip(before, x, strict=True):
            (value,), part = node.module((value,))
            values.append(value)
            total += part
        outputs, part = built[0](values, c=c)
        total += part
        for node, value in zip(after, outputs, strict=True):
            total += node.module((value,))[1]
    assert float((flat(again) - flat(x)).abs().max()) <= 3 * case.inverse_error
    torch.testing.assert_close(log_det, total, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(log_det, -inverse_log_det, rtol=0.0, atol=1e-8)
    torch.testing.assert_close(log_det, log_abs_det(graph, x, c, rev=False), rtol=0.0, atol=1e-8)


@every_case
def test_deep_copies_and_states(case: Case) -> None:
    node, x, c = make(case, case.example)
    expected, log_det = node(x, c=c)
    fresh = case.build(case.example, case.conditions(case.example)).double()
    missing = fresh.load_state_dict(node.state_dict(), strict=True)
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    for other in (copy.deepcopy(node), fresh):
        outputs, other_log_det = other(x, c=c)
        assert torch.equal(flat(outputs), flat(expected))
        assert torch.equal(other_log_det, log_det)
    assert {id(value) for value in copy.deepcopy(node).parameters()}.isdisjoint(id(value) for value in node.parameters())


@every_case
def test_double_is_double_and_repr_tells_the_class(case: Case) -> None:
    node, x, c = make(case, case.example)
    outputs, log_det = node(x, c=c)
    assert {value.dtype for value in (*outputs, log_det)} == {torch.float64}
    assert all(value.dtype == torch.float64 for value in node.parameters())
    assert type(node).__name__ in repr(node)


@every_case
def test_without_log_det_the_outputs_are_the_same(case: Case) -> None:
    node, x, c = make(case, case.example)
    with_it, _ = node(x, c=c)
    without, _ = node(x, c=c, jac=False)
    assert torch.equal(flat(with_it), flat(without))


@every_case
def test_inputs_are_not_written_to(case: Case) -> None:
    node, x, c = make(case, case.example)
    kept = [value.clone() for value in x]
    with torch.no_grad():
        z, _ = node(x, c=c)
        kept_z = [value.clone() for value in z]
        node(z, c=c, rev=True)
    assert all(map(torch.equal, x, kept))
    assert all(map(torch.equal, z, kept_z))
