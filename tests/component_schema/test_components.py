"""Registered components by name: named sections, specs, and arguments from code."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import Field, ValidationError
from torch import nn

import flowclf
from flowclf import registry
from flowclf.component_schema.components import Named, as_declared, check_spec, component_model, flat_schema
from flowclf.component_schema.sections import Section, check, plain
from flowclf.component_schema.signature import Component
from flowclf.errors import GraphError, RegistryError
from flowclf.nodes import ActNorm
from flowclf.registry import Registry


class Mode(enum.Enum):
    FAST = "fast"


class Rule(Component):
    name: str
    start: int = 0


class Plan(Section):
    rule: Annotated[Rule, Named("rules", default="halve")] = Field({}, validate_default=True)
    other: Annotated[Rule, Named("rules")] | None = None


def halve(*, every: int = 30) -> None:
    """Halve."""


def drop(*, to: float, within: tuple[int, int] = (0, 1)) -> None:
    """Drop."""


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Registry("rule", "flowclf.test_rules")
    known.register("halve")(halve)
    known.register("drop")(drop)
    monkeypatch.setitem(registry.registries, "rules", known)


def problems(data: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        check(Plan, data)
    return {".".join(map(str, e["loc"])): e["msg"] for e in caught.value.errors()}


def test_a_section_without_a_name_has_the_default_one() -> None:
    assert plain(Plan().rule) == {"name": "halve", "start": 0, "every": 30}
    assert check(Plan, {}) == Plan()
    plan = check(Plan, {"rule": {"every": 3, "start": 1}})
    assert (plan.rule.name, plan.rule.start, plan.rule.arguments) == ("halve", 1, {"every": 3})
    plan = check(Plan, {"rule": {"name": "drop", "to": 1}, "other": {"name": "halve"}})
    assert (plan.rule.name, plan.rule.arguments) == ("drop", {"to": 1.0, "within": (0, 1)})
    assert check(Plan, plain(plan)) == plan
    assert plain(plan)["rule"] == {"name": "drop", "start": 0, "to": 1.0, "within": [0, 1]}


@pytest.mark.parametrize(
    ("rule", "place", "words"),
    [
        ("halve", "rule", "expected a mapping with the name of a registered rule, found 'halve'; write {name: halve}"),
        ({"name": "halv"}, "rule.name", "unknown rule 'halv'; did you mean 'halve'?"),
        ({"name": 3}, "rule.name", "expected the name of a registered rule, found 3"),
        ({"name": "drop"}, "rule.to", "missing"),
        ({"evry": 1}, "rule.evry", "unknown key 'evry'; did you mean 'every'?"),
        ({"every": 1.5}, "rule.every", "Input should be a valid integer, found 1.5"),
        ({"start": "a"}, "rule.start", "Input should be a valid integer, found 'a'"),
    ],
)
def test_a_wrong_named_section_is_refused_at_its_place(rule: Any, place: str, words: str) -> None:
    assert problems({"rule": rule}) == {place: words}


@pytest.mark.parametrize(
    ("other", "place", "words"),
    [
        ({}, "other.name", "missing; expected the name of a registered rule: drop, halve"),
        ({"nam": "drop"}, "other.nam", "did you mean 'name'?"),
    ],
)
def test_a_name_without_a_default_is_required(other: Any, place: str, words: str) -> None:
    assert words in problems({"other": other})[place]


@pytest.mark.parametrize(
    ("plan", "valid"),
    [
        ({"rule": {"every": 3}}, True),
        ({"rule": {"name": "drop", "to": 1, "within": [1, 2]}}, True),
        ({"rule": {"name": "drop"}}, False),
        ({"rule": {"to": 1}}, False),
        ({"rule": {"name": "halv"}}, False),
        ({"other": {"every": 3}}, False),
        ({"other": {"name": "halve", "every": 3}}, True),
    ],
)
def test_the_json_schema_says_the_same(plan: Any, valid: bool) -> None:
    assert jsonschema.Draft202012Validator(flat_schema(Plan)).is_valid(plan) is valid
    try:
        check(Plan, plan)
    except ValidationError:
        assert not valid
    else:
        assert valid


def test_a_component_that_cannot_be_imported_is_named_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name, value, module, attr, dist = "broken", "broken:rule", "broken", "rule", None

        def load(self) -> Any:
            raise RuntimeError("no licence")

    monkeypatch.setattr(registry.registries["rules"], "_entries", {"broken": [Broken()]})
    assert "rule 'broken' cannot be loaded from broken:rule: no licence" in problems({"rule": {"name": "broken"}})["rule.name"]
    assert check(Plan, {"rule": {"name": "halve"}}).rule.arguments == {"every": 30}


def test_a_spec_without_arguments_is_its_name() -> None:
    assert check_spec("nodes", "dct2d") == "dct2d"
    assert check_spec("nodes", {"dct2d": {}}) == "dct2d"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(RegistryError, match="unknown subnet 'cnv'; did you mean 'conv'"):
        component_model("subnets", "cnv")


def test_arguments_from_code_are_as_the_component_declares_them(scratch_registries: None) -> None:
    @registry.nodes.register("test_typed")
    class Typed(ActNorm):
        def __init__(
            self,
            dims_in: Any,
            dims_c: Any = None,
            *,
            mode: Mode = Mode.FAST,
            sizes: set[int] = frozenset(),  # type: ignore[assignment]
            folder: Path | None = None,
            network: nn.Module,
        ) -> None:
            super().__init__(dims_in, dims_c)
            self.got = (mode, sizes, folder, network)

    network = nn.Identity()
    given = {"mode": "fast", "sizes": [2, 1], "folder": "a", "network": network}
    assert as_declared("nodes", "test_typed", given) == {
        "mode": Mode.FAST,
        "sizes": {1, 2},
        "folder": Path("a"),
        "network": network,
    }
    graph = flowclf.build_graph((4,), [{"test_typed": given}, "split_head"], 2)
    assert graph.node_list[1].module.got == (Mode.FAST, {1, 2}, Path("a"), network)
    with pytest.raises(GraphError, match=r"1_test_typed': argument mode: Input should be 'fast', found 'slow'"):
        flowclf.build_graph((4,), [{"test_typed": given | {"mode": "slow"}}, "split_head"], 2)
    with pytest.raises(GraphError, match=r"1_test_typed': argument network: missing"):
        flowclf.build_graph((4,), [{"test_typed": {"mode": "fast"}}, "split_head"], 2)


def test_a_typed_node_is_saved_and_rebuilt(scratch_registries: None, tmp_path: Path) -> None:
    @registry.nodes.register("test_typed")
    class Typed(ActNorm):
        def __init__(self, dims_in: Any, dims_c: Any = None, *, mode: Mode, sizes: tuple[int, ...] = ()) -> None:
            super().__init__(dims_in, dims_c)
            self.got = (mode, sizes)

    @registry.subnets.register("test_typed")
    def subnet(channels_in: int, channels_out: int, *, mode: Mode) -> nn.Module:
        assert mode is Mode.FAST
        return nn.Linear(channels_in, channels_out)

    nodes = [
        {"test_typed": {"mode": Mode.FAST, "sizes": (1,)}},
        {"additive_coupling": {"subnet": {"test_typed": {"mode": "fast"}}}},
    ]
    clf = flowclf.build_classifier((4,), [*nodes, "split_head"], 2)
    flowclf.save(clf, tmp_path / "model")
    again = flowclf.load(tmp_path / "model")
    assert again.graph.node_list[1].module.got == (Mode.FAST, (1,))


def test_plain_arguments_from_code_stay_as_they_are() -> None:
    given = {"bound": 1, "subnet": {"conv": {"width": 8}}}
    assert as_declared("nodes", "affine_coupling", given) == given
    with pytest.raises(ValidationError, match="unknown key 'widht'"):
        as_declared("nodes", "affine_coupling", {"subnet": {"conv": {"widht": 8}}})
