"""Registered components by name, checked: the model of one, and specs that name one with its arguments."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import core_schema

from flowclf import registry
from flowclf.errors import RegistryError
from flowclf.signatures.annotations import FromCode, describe, found
from flowclf.signatures.checking import UNKNOWN_KEY, Component, carried, failure, problem, to_pydantic
from flowclf.signatures.reading import arguments

__all__ = [
    "PLACEHOLDER",
    "checked_spec",
    "component_model",
    "exact_schema",
    "name_schema",
    "nothing_schema",
    "registered",
    "spec_schema",
]

PLACEHOLDER = "x-flowclf-kind"
"""Key that stands in a JSON schema where a spec of that kind belongs."""


@functools.cache
def _model(kind: str, name: str, target: Any, base: type[Component]) -> type[Component]:
    return to_pydantic(arguments(registry.registries[kind], name), base)


def component_model(kind: str, name: str, base: type[Component] = Component) -> type[Component]:
    """The model of a registered component's arguments; one class for each component, so that equal sections compare equal.

    Args:
        kind: key of :data:`flowclf.registry.registries`.
        name: the registered name.
        base: section with further keys.

    Raises:
        RegistryError: the name is not registered.
    """
    return _model(kind, name, registry.registries[kind].target(name), base)


def registered(kind: str, name: Any, *place: int | str, as_key: bool = False) -> str:
    """The name, if it is registered.

    Raises:
        ValidationError: it is not; located at ``place``, which is a key or a value.
    """
    known = registry.registries[kind]
    if not isinstance(name, str):
        raise failure(problem(f"expected the name of a {known.kind}, found {found(name)}", place))
    if name not in known.names():
        try:
            known.check(name)
        except RegistryError as error:
            raise failure(problem(str(error), place, *([UNKNOWN_KEY] if as_key else []))) from error
    return name


def checked_spec(kind: str, value: Any) -> str | dict[str, dict[str, Any]]:
    """A spec in its canonical form: a mapping of the name to all of its arguments, or the name where there are none.

    Args:
        kind: key of :data:`flowclf.registry.registries`.
        value: a registered name, or a mapping of one registered name to its arguments.

    Raises:
        ValidationError: anything else; every error is located.

    Example:
        >>> checked_spec("subnets", "dense")
        {'dense': {'width': 128, 'hidden_layers': 2}}
    """
    known = registry.registries[kind]
    given: Any = {}
    if isinstance(value, str):
        name = registered(kind, value)
    elif isinstance(value, Mapping) and len(value) == 1:
        ((key, given),) = value.items()
        name = registered(kind, key, key, as_key=True)
        if not isinstance(given, Mapping):
            hint = f"; without arguments, write '{name}' alone" if given is None else ""
            raise failure(problem(f"expected a mapping of arguments of {known.kind} '{name}', found {found(given)}{hint}", (name,)))
    else:
        keys = f" of {len(value)} keys: {', '.join(list(value)[:5])}" if isinstance(value, Mapping) and value else ""
        message = f"expected the name of a {known.kind}, or a mapping of one name to its arguments; found {found(value)}{keys}"
        raise failure(problem(message))
    try:
        section = component_model(kind, name).model_validate(dict(given))
    except ValidationError as error:
        raise failure(*carried(error, name)) from error
    return {name: section.arguments} if section.arguments else name


def spec_schema(kind: str) -> core_schema.CoreSchema:
    """What pydantic does with a field that is a spec."""
    return core_schema.no_info_plain_validator_function(
        functools.partial(checked_spec, kind),
        metadata={"pydantic_js_functions": [lambda schema, handler: {PLACEHOLDER: kind}]},
    )


def name_schema(kind: str) -> core_schema.CoreSchema:
    """What pydantic does with a field that is a registered name alone."""
    return core_schema.no_info_plain_validator_function(
        functools.partial(registered, kind),
        metadata={"pydantic_js_functions": [lambda schema, handler: {"enum": registry.registries[kind].names()}]},
    )


def exact_schema(choices: tuple[Any, ...], schema: core_schema.CoreSchema) -> core_schema.CoreSchema:
    """What pydantic does with a field that is one of some literals: to Python, and so to pydantic, ``True == 1``."""
    kinds = {type(choice) for choice in choices}

    def check(value: Any) -> Any:
        if type(value) not in kinds:
            raise ValueError("equal to a literal, but of another type")
        return value

    return core_schema.no_info_before_validator_function(check, schema)


def _nothing(value: Any) -> Any:
    raise failure(problem(f"expected {describe(FromCode)}, found {found(value)}"))


def nothing_schema() -> core_schema.CoreSchema:
    """What pydantic does with a field that only code can fill."""
    return core_schema.no_info_plain_validator_function(
        _nothing, metadata={"pydantic_js_functions": [lambda schema, handler: {"not": {}}]}
    )
