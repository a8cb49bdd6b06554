"""Registered components in plain data: a mapping with a ``name``, or a spec; both checked against the component's signature.

:class:`Named` and :class:`Spec` annotate the fields and arguments that hold such data. A ``kind`` is a key of
:data:`flowclf.registry.registries`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import core_schema

from flowclf import registry
from flowclf.component_schema.sections import (
    BAD_VALUE,
    MISSING_KEY,
    UNKNOWN_KEY,
    Place,
    check,
    failure,
    first_problem,
    found,
    located,
    plain,
    problem,
    unknown_key,
)
from flowclf.component_schema.signature import Component, Reference, section_of
from flowclf.component_schema.specs import SpecError, name_and_arguments
from flowclf.errors import GraphError, RegistryError, UsageError
from flowclf.registry import nearest

C = TypeVar("C", bound=Component)


@dataclasses.dataclass(frozen=True)
class Spec(Reference):
    """Annotation of a value that is a spec: a registered name, or a mapping of one name to its arguments."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(functools.partial(check_spec, self.kind))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return spec_schema(self.kind)


@dataclasses.dataclass(frozen=True)
class Named(Reference):
    """Annotation of a :class:`Component`: a mapping of a registered ``name``, the section's own keys, and arguments.

    Without a default, the name is required. ``Field({}, validate_default=True)`` fills in a section that is not given.
    """

    kind: str
    default: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        checked = functools.partial(check_named, self.kind, base=source, default=self.default)
        return core_schema.no_info_plain_validator_function(checked, metadata={"base": source})

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        names = registry.registries[self.kind].names()
        # Branches by name, so that an editor's errors are about the component that is meant.
        branches = []
        for name in names:
            one = flat_schema(component_model(self.kind, name, schema["metadata"]["base"]))
            one["properties"]["name"] = {"const": name}
            one["required"] = [key for key in one.get("required", []) if key != "name"]
            is_it: dict[str, Any] = {"properties": {"name": {"const": name}}}
            branches.append({"if": is_it if name == self.default else is_it | {"required": ["name"]}, "then": one})
        required = {} if self.default else {"required": ["name"]}
        return {"type": "object", **required, "properties": {"name": {"enum": names}}, "allOf": branches}


def check_named(kind: str, value: Any, base: type[C], default: str | None) -> C:
    """The section of a registered component: a mapping of its ``name``, the other keys of ``base``, and its arguments.

    Raises:
        ValidationError: if the value is not such a mapping; every error is located.
    """
    known = registry.registries[kind]
    if isinstance(value, base):
        return value
    if not isinstance(value, Mapping):
        hint = f"; write {{name: {value}}}" if isinstance(value, str) and value in known.names() else ""
        raise failure(problem(f"expected a mapping with the name of a registered {known.kind}, found {found(value)}{hint}"))
    value = value if default is None else {"name": default, **value}
    if "name" not in value:
        for key in value:
            if "did you mean" in nearest(key[:80], ["name"]):
                raise failure(problem(unknown_key(key, ["name"]), (key,), UNKNOWN_KEY))
        missing = f"missing; expected the name of a registered {known.kind}: {', '.join(known.names())}"
        raise failure(problem(missing, ("name",), MISSING_KEY))
    if not isinstance(value["name"], str):
        raise failure(problem(f"expected the name of a registered {known.kind}, found {found(value['name'])}", ("name",)))
    try:
        model = component_model(kind, value["name"], base)
    except RegistryError as error:
        raise failure(problem(str(error), ("name",))) from error
    return cast(C, check(model, value))


def check_spec(kind: str, value: Any) -> str | dict[str, dict[str, Any]]:
    """A spec in its canonical form: a mapping of the name to all of its arguments, or the name if it has none.

    Raises:
        ValidationError: if the value is not a valid spec; every error is located.

    Example:
        >>> check_spec("subnets", "dense")
        {'dense': {'width': 128, 'hidden_layers': 2}}
    """
    place: Place = ()
    try:
        name, given = name_and_arguments(value, registry.registries[kind].kind)
        place = () if isinstance(value, str) else (name,)
        arguments = plain(check(component_model(kind, name), given))
    except SpecError as error:
        raise failure(problem(error.message, error.place, error.kind)) from None
    except RegistryError as error:
        raise failure(problem(str(error), place, UNKNOWN_KEY if place else BAD_VALUE)) from error
    except ValidationError as error:
        raise failure(*located(error, *place)) from None
    return {name: arguments} if arguments else name


def as_declared(kind: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments from code, checked as those of a recipe are, in the types that the component declares.

    Objects that are not plain data are not checked; defaults are not filled in.

    Raises:
        RegistryError: if the name is not registered.
        ValidationError: if an argument is unknown, missing or not valid.
    """
    data: dict[str, Any] = {}
    for key, value in arguments.items():
        try:
            data[key] = plain(value)
        except TypeError:
            continue
    section = check(component_model(kind, name, without=arguments.keys() - data.keys()), data)
    declared = {key: value for key, value in section.arguments.items() if key in data and not _is_json(value)}
    return {**arguments, **declared}


def build(kind: str, spec: Any, *given: Any, returns: type = object, error: type[UsageError] = GraphError, **supplied: Any) -> Any:
    """Call the component of a spec with its checked arguments and those that its builder supplies, positional and by keyword.

    Raises:
        RegistryError: if the name is not registered.
        GraphError: if the spec has another form.
        UsageError: if an argument is not valid, or the result no instance of ``returns``; of the class ``error``.

    Example:
        >>> build("transformers", {"affine": {"bound": 1.0}})
        Affine(bound=1.0)
    """
    known = registry.registries[kind]
    name, arguments = name_and_arguments(spec, known.kind)
    try:
        component = known.get(name)(*given, **supplied, **as_declared(kind, name, arguments))
    except ValidationError as invalid:
        raise error(f"{known.kind} '{name}': argument {first_problem(invalid)}") from invalid
    if not isinstance(component, returns):
        raise error(f"{known.kind} '{name}': expected a {returns.__module__}.{returns.__name__}, found {type(component).__name__}")
    return component


def _is_json(value: Any) -> bool:
    if type(value) is dict:
        return all(map(_is_json, value.values()))
    return all(map(_is_json, value)) if type(value) is list else type(value) in (bool, int, float, str, type(None))


def component_model(kind: str, name: str, base: type[Component] = Component, without: Iterable[str] = ()) -> type[Component]:
    """The section of a registered component's arguments but those in ``without``, with the further keys of ``base``.

    There is one class per component, so that equal sections compare equal.

    Raises:
        RegistryError: if the name is not registered, the component cannot be imported, an annotation is not a type, or an argument
            has the name of a key of ``base``.

    Example:
        >>> check(component_model("subnets", "dense"), {"width": 32}).arguments
        {'width': 32, 'hidden_layers': 2}
    """
    return _model(kind, name, registry.registries[kind].get(name), base, frozenset(without))


@functools.cache
def _model(kind: str, name: str, component: Any, base: type[Component], without: frozenset[str]) -> type[Component]:
    known = registry.registries[kind]
    try:
        return section_of(component, name, base, known.supplied | without)
    except TypeError as error:
        raise RegistryError(f"{known.kind} '{name}' cannot be used in a recipe: {error}") from error


def spec_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a spec of a registered component."""
    models = {name: flat_schema(component_model(kind, name)) for name in registry.registries[kind].names()}
    alone = [name for name, one in models.items() if not one.get("required")]
    mapping = {"type": "object", "properties": models, "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    return {"anyOf": [{"enum": alone}, mapping]}


def flat_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema without ``$defs``: sections inside it are written out."""
    schema = model.model_json_schema()
    definitions: Mapping[str, Any] = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        match value:
            case {"$ref": str() as reference}:
                rest = {key: item for key, item in value.items() if key != "$ref"}
                return {**inlined(definitions[reference.rpartition("/")[2]]), **rest}
            case dict():
                return {key: inlined(item) for key, item in value.items()}
            case list():
                return [inlined(item) for item in value]
        return value

    return inlined(schema)  # type: ignore[no-any-return]
