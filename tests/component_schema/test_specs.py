"""Specs: their form, read once for code and recipes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowclf.component_schema.specs import (
    MAX_NODES,
    MAX_REPEAT_DEPTH,
    Repeat,
    SpecError,
    name_and_arguments,
    read_nodes,
    shown,
    unrolled,
)


@pytest.mark.parametrize(
    ("spec", "expected"), [("conv", ("conv", {})), ({"conv": {}}, ("conv", {})), ({"conv": {"width": 8}}, ("conv", {"width": 8}))]
)
def test_a_spec_is_a_name_or_a_mapping_of_one_name(spec: Any, expected: tuple[str, dict[str, Any]]) -> None:
    assert name_and_arguments(spec, "subnet") == expected


@pytest.mark.parametrize(
    ("spec", "place", "words"),
    [
        (None, (), "found null"),
        (3, (), "expected the name of a registered subnet, or a mapping of one name to its arguments; found 3"),
        ({}, (), "found an empty mapping"),
        ({"a": {}, "b": {}}, (), "found a mapping of 2 keys: a, b"),
        ({3: {}}, (3,), "expected the name of a registered subnet, found 3"),
        ({"conv": None}, ("conv",), "found null; without arguments, write 'conv' alone"),
        ({"conv": 3}, ("conv",), "expected a mapping of arguments of subnet 'conv', found 3"),
    ],
)
def test_anything_else_is_refused_at_its_place(spec: Any, place: tuple[Any, ...], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        name_and_arguments(spec, "subnet")
    assert caught.value.place == place
    assert words in caught.value.message


def test_nodes_know_their_place_and_are_unrolled_in_order() -> None:
    nodes, faults = read_nodes(["a", {"repeat": 2, "nodes": [{"b": {"x": 1}}, {"repeat": 1, "nodes": ["c"]}]}])
    assert not faults
    assert isinstance(nodes[1], Repeat)
    assert [(node.place, node.spec) for node in unrolled(nodes)] == [
        ((0,), "a"),
        *[((1, "nodes", 0), {"b": {"x": 1}}), ((1, "nodes", 1, "nodes", 0), "c")] * 2,
    ]


def test_all_that_is_wrong_with_the_form_comes_at_once() -> None:
    _, faults = read_nodes([3, {"repeat": 0, "node": ["a"], "nodes": [None]}, {"repeat": 1}, {"nodes": []}])
    assert [f"{shown(fault.place)}: {fault.message.partition(';')[0]}" for fault in faults] == [
        "nodes[0]: expected the name of a registered node, or a mapping of one name to its arguments",
        "nodes[1].node: unknown key 'node'",
        "nodes[1].repeat: expected an integer of at least 1, found 0",
        "nodes[1].nodes[0]: expected the name of a registered node, or a mapping of one name to its arguments",
        "nodes[2].nodes: missing",
        "nodes[3].repeat: missing",
        "nodes[3].nodes: expected a list of at least one node, found an empty list",
    ]


def nested(depth: int) -> list[Any]:
    return ["a"] if not depth else [{"repeat": 1, "nodes": nested(depth - 1)}]


@given(st.integers(0, 15))
def test_repeats_are_nested_so_deep_and_no_deeper(depth: int) -> None:
    assert bool(read_nodes(nested(depth))[1]) == (depth > MAX_REPEAT_DEPTH)


@given(st.integers(1, 200), st.integers(1, 200))
def test_no_more_nodes_than_the_limit(outer: int, inner: int) -> None:
    nodes, faults = read_nodes([{"repeat": outer, "nodes": [{"repeat": inner, "nodes": ["a"]}]}])
    assert bool(faults) == (outer * inner > MAX_NODES)
    assert faults or len(list(unrolled(nodes))) == outer * inner
