"""Parts of a recipe whose keys depend on a name in them: components, lists of nodes, optimisers and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from flowclf import registry
from flowclf.registry import nearest
from flowclf.signatures.annotations import found
from flowclf.signatures.checking import MISSING_KEY, UNKNOWN_KEY, Component, carried, failure, problem
from flowclf.signatures.components import PLACEHOLDER, checked_spec, component_model, registered

__all__ = ["MAX_MODEL_NODES", "checked_losses", "checked_model", "checked_named", "checked_nodes", "placeholder"]

MAX_MODEL_NODES = 10_000
MAX_REPEAT_DEPTH = 10
MAX_LOSSES = 100
# A list that is wrong throughout is wrong in the same way; checking on would only take time.
_ENOUGH_PROBLEMS = 50

_REPEAT = ("repeat", "nodes")

C = TypeVar("C", bound=Component)


def placeholder(kind: str) -> WithJsonSchema:
    """Stands in the JSON schema for a definition that :mod:`flowclf.recipe.json_schema` makes."""
    return WithJsonSchema({PLACEHOLDER: kind})


def checked_named(kind: str, value: Any, base: type[C]) -> C:
    """The section of a registered component: a mapping of its ``name``, the keys of ``base`` and its arguments.

    Raises:
        ValidationError: not such a mapping; every error is located.
    """
    known = registry.registries[kind]
    if isinstance(value, base):
        return value
    if not isinstance(value, Mapping):
        hint = f"; write {{name: {value}}}" if isinstance(value, str) and value in known.names() else ""
        raise failure(problem(f"expected a mapping with the name of a {known.kind}, found {found(value)}{hint}"))
    if "name" not in value:
        for key in value:
            if "did you mean" in nearest(key[:80], ["name"]):
                raise failure(problem(f"unknown key {found(key)}; did you mean 'name'?", (key,), UNKNOWN_KEY))
        message = f"missing; expected the name of a {known.kind}: {', '.join(known.names())}"
        raise failure(problem(message, ("name",), MISSING_KEY))
    name = registered(kind, value["name"], "name")
    section = component_model(kind, name, base).model_validate(value)
    if not isinstance(section, base):
        raise TypeError(f"expected {base.__name__}, found {type(section).__name__}")
    return section


def checked_losses(value: Any, one: type[C], term: type[C]) -> C | list[C]:
    """A loss, or the terms of a sum of losses.

    Raises:
        ValidationError: neither; every error is located.
    """
    if not isinstance(value, list):
        return checked_named("losses", value, one)
    if not 1 <= len(value) <= MAX_LOSSES:
        raise failure(problem(f"expected a list of 1 to {MAX_LOSSES} losses, found {len(value)}"))
    losses, problems = [], []
    for index, item in enumerate(value):
        try:
            losses.append(checked_named("losses", item, term))
        except ValidationError as error:
            problems += carried(error, index)
    if problems:
        raise failure(*problems)
    return losses


def checked_model(value: Any, base: type[C]) -> C | list[Any]:
    """An architecture, or a list of node specs.

    Raises:
        ValidationError: neither; every error is located.
    """
    return checked_nodes(value) if isinstance(value, list) else checked_named("models", value, base)


def checked_nodes(value: Any) -> list[Any]:
    """A list of node specs in canonical form, with every argument filled in.

    Raises:
        ValidationError: a spec that is none, nested too deep, or more than :data:`MAX_MODEL_NODES` nodes in all.
    """
    problems: list[InitErrorDetails] = []
    specs = _nodes(value, (), problems)
    count = _count(specs) if not problems else 0
    if count > MAX_MODEL_NODES:
        problems.append(problem(f"expected at most {MAX_MODEL_NODES} nodes, repeats unrolled; found {count}"))
    if problems:
        raise failure(*problems)
    return specs


def _nodes(value: Any, place: tuple[int | str, ...], problems: list[InitErrorDetails]) -> list[Any]:
    if not isinstance(value, list) or not value:
        problems.append(problem(f"expected a list of at least one node, found {found(value)}", place))
        return []
    if len(value) > MAX_MODEL_NODES:
        problems.append(problem(f"expected at most {MAX_MODEL_NODES} nodes, found {len(value)}", place))
        return []
    specs: list[Any] = []
    for index, item in enumerate(value):
        if len(problems) >= _ENOUGH_PROBLEMS:
            break
        here = (*place, index)
        if isinstance(item, Mapping) and not item.keys().isdisjoint(_REPEAT):
            specs.append(_repeat(item, here, problems))
            continue
        try:
            specs.append(checked_spec("nodes", item))
        except ValidationError as error:
            problems += carried(error, *here)
    return specs


def _repeat(item: Mapping[str, Any], place: tuple[int | str, ...], problems: list[InitErrorDetails]) -> dict[str, Any]:
    for key in item:
        if key not in _REPEAT:
            message = f"unknown key {found(key)}{nearest(key, _REPEAT)}"
            problems.append(problem(message, (*place, key), UNKNOWN_KEY))
    times = item.get("repeat")
    if "repeat" not in item:
        problems.append(problem("missing; expected how often to repeat the nodes", (*place, "repeat"), MISSING_KEY))
    elif not isinstance(times, int) or isinstance(times, bool) or times < 1:
        problems.append(problem(f"expected an integer of at least 1, found {found(times)}", (*place, "repeat")))
    nodes: list[Any] = []
    if "nodes" not in item:
        problems.append(problem("missing; expected the list of nodes to repeat", (*place, "nodes"), MISSING_KEY))
    elif len(place) > 2 * MAX_REPEAT_DEPTH:
        problems.append(problem(f"expected repeats nested at most {MAX_REPEAT_DEPTH} deep", (*place, "nodes")))
    else:
        nodes = _nodes(item["nodes"], (*place, "nodes"), problems)
    return {"repeat": times, "nodes": nodes}


def _count(specs: list[Any]) -> int:
    return sum(spec["repeat"] * _count(spec["nodes"]) if isinstance(spec, dict) and "repeat" in spec else 1 for spec in specs)
