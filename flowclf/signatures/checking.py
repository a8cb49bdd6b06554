"""Strict pydantic models of signatures, whose errors are in plain words and know where they are.

A :class:`Section` is a mapping with fixed keys; a signature becomes one with :func:`to_pydantic`. All errors that leave a
section are of three types, :data:`UNKNOWN_KEY`, :data:`MISSING_KEY` and :data:`BAD_VALUE`, located as the mapping was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self, cast, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from flowclf.errors import RegistryError
from flowclf.registry import nearest
from flowclf.signatures.annotations import describe, found
from flowclf.signatures.reading import UNKNOWN, Signature

__all__ = ["BAD_VALUE", "MISSING_KEY", "UNKNOWN_KEY", "Component", "Section", "failure", "problem", "to_pydantic"]

UNKNOWN_KEY = "unknown_key"
MISSING_KEY = "missing_key"
BAD_VALUE = "bad_value"

Location = tuple[int | str, ...]

# A section that is wrong throughout is wrong in the same way; searching for near names further would only take time.
_ENOUGH_PROBLEMS = 50


def problem(message: str, location: Location = (), kind: str = BAD_VALUE) -> InitErrorDetails:
    """One error for pydantic, in our words."""
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": message}), loc=location, input=None)


def failure(*problems: InitErrorDetails) -> ValidationError:
    """The exception that a validator raises; pydantic puts the locations below where the validator was called."""
    return ValidationError.from_exception_data("flowclf", list(problems))


def carried(error: ValidationError, *prefix: int | str) -> list[InitErrorDetails]:
    """The errors of a section, to be raised again further up."""
    return [problem(e["msg"], (*prefix, *e["loc"]), e["type"]) for e in error.errors(include_url=False)]


class Section(BaseModel):
    """A mapping with fixed keys, strictly checked; unknown keys are refused with the nearest valid one.

    Where ``nestable`` has an argument ``a_b`` and there is no key ``a``, it may be written ``a: {b: ...}`` as well.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
    nestable: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def by_key(cls) -> dict[str, FieldInfo]:
        """The valid keys, as written, and their fields."""
        return {info.alias or name: info for name, info in cls.model_fields.items()}

    @classmethod
    def groups(cls) -> dict[str, dict[str, str]]:
        """What may be written nested: ``{a: {b: "a_b"}}``."""
        keys = cls.by_key()
        groups: dict[str, dict[str, str]] = {}
        for name in sorted(cls.nestable):
            parts = name.split("_")
            for cut in range(1, len(parts)):
                prefix, rest = "_".join(parts[:cut]), "_".join(parts[cut:])
                if prefix and rest and prefix not in keys:
                    groups.setdefault(prefix, {})[rest] = name
        return groups

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise failure(problem(f"expected a mapping, found {found(data)}"))
        flat, written, problems = cls._flattened(data)
        try:
            section = handler(flat)
        except ValidationError as error:
            for index, (key, errors) in enumerate(_by_key(error).items()):
                if index < _ENOUGH_PROBLEMS:
                    problems += cls._translated(key, errors, flat, written)
        if problems:
            raise failure(*problems)
        return section

    @classmethod
    def _flattened(cls, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Location], list[InitErrorDetails]]:
        """Flat values by argument, how each was written, and what cannot be flattened."""
        groups = cls.groups()
        flat: dict[str, Any] = {}
        written: dict[str, Location] = {}
        problems: list[InitErrorDetails] = []

        def put(key: str, value: Any, place: Location) -> None:
            if key in flat:
                other = ".".join(map(str, written[key]))
                problems.append(problem(f"the same argument is given as '{other}' too; leave one out", place, UNKNOWN_KEY))
            else:
                flat[key], written[key] = value, place

        for key, value in data.items():
            group = groups.get(key)
            if group is None:
                put(key, value, (key,))
            elif not isinstance(value, Mapping):
                problems.append(problem(f"expected a mapping of {', '.join(sorted(group))}; found {found(value)}", (key,)))
            else:
                for inner, item in value.items():
                    if inner in group:
                        put(group[inner], item, (key, inner))
                    elif len(problems) < _ENOUGH_PROBLEMS:
                        problems.append(problem(_unknown(inner, group), (key, inner), UNKNOWN_KEY))
        return flat, written, problems

    @classmethod
    def _translated(
        cls, key: str, errors: list[Any], flat: Mapping[str, Any], written: Mapping[str, Location]
    ) -> list[InitErrorDetails]:
        info = cls.by_key().get(key)
        place = written.get(key, (key,))
        if info is None and key in cls.model_fields and errors[0]["type"] != "extra_forbidden":
            # pydantic names a field itself, not its alias, where the default that the signature declares is invalid.
            own, name = cls.model_fields[key], cls.model_fields[key].alias or key
            expected = describe(own.annotation, tuple(own.metadata))
            message = f"missing; its default {found(own.default)} cannot be used: expected {expected}"
            return [problem(message, (name,), MISSING_KEY)]
        if info is None:
            return [problem(_unknown(key, [*cls.by_key(), *cls.groups()]), place, UNKNOWN_KEY)]
        if errors[0]["type"] == "missing" and len(errors[0]["loc"]) == 1:
            expected = describe(info.annotation, tuple(info.metadata))
            return [problem(f"missing; expected {expected}", place, MISSING_KEY)]
        told = [e for e in errors if e["type"] in (UNKNOWN_KEY, MISSING_KEY, BAD_VALUE)]
        if told:
            return [problem(e["msg"], (*place, *e["loc"][1:]), e["type"]) for e in told]
        details = {}
        for error in errors[: 2 * _ENOUGH_PROBLEMS]:
            location, annotation, value = _pinpoint(error["loc"][1:], info.annotation, flat.get(key))
            metadata = () if location else tuple(info.metadata)
            message = f"expected {describe(annotation, metadata)}, found {found(value)}"
            details[location] = problem(message, (*place, *location))
        inner = [location for location in details if location]
        return [details[location] for location in inner or details]


def _unknown(key: str, valid: Iterable[str]) -> str:
    return f"unknown key {found(key)}{nearest(key[:80], valid)}"


def _by_key(error: ValidationError) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for item in error.errors(include_url=False):
        grouped.setdefault(str(item["loc"][0]) if item["loc"] else "", []).append(item)
    return grouped


def _pinpoint(location: Location, annotation: Any, value: Any) -> tuple[Location, Any, Any]:
    """Follow pydantic's location into lists, past the tags that it adds for unions: (location, type, value) there."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    members = [item for item in get_args(bare) if item is not type(None)]
    if not isinstance(value, list) or not members or not location:
        return (), annotation, value
    if get_origin(bare) is not list:
        if len(members) == 1:
            return _pinpoint(location, members[0], value)
        inner = next((item for item in members if get_origin(item) is list), None)
        tag, *rest = location
        return _pinpoint(tuple(rest), inner, value) if inner and rest and str(tag).startswith("list") else ((), annotation, value)
    index, *rest = location
    if not isinstance(index, int) or index >= len(value):
        return (), annotation, value
    further, kind, at = _pinpoint(tuple(rest), members[0], value[index])
    return (index, *further), kind, at


class Component(Section):
    """A section whose keys are, besides its own, the arguments of one registered component."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The component's keyword arguments, flat, every known default filled in."""
        values = {
            info.alias: getattr(self, name)
            for name, info in type(self).model_fields.items()
            if info.alias and getattr(self, name) is not UNKNOWN
        }
        return {**values, **(self.model_extra or {})}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Show the nested forms as well."""
        reference = handler(schema)
        json = handler.resolve_ref_schema(reference)
        properties: dict[str, Any] = json.setdefault("properties", {})
        required: list[str] = json.pop("required", [])
        nested: dict[str, list[tuple[str, str]]] = {}
        for prefix, group in cls.groups().items():
            inner = {rest: properties[name] for rest, name in group.items()}
            properties[prefix] = {"type": "object", "properties": inner, "additionalProperties": False}
            for rest, name in group.items():
                nested.setdefault(name, []).append((prefix, rest))
        if plain := [name for name in required if name not in nested]:
            json["required"] = plain
        either = []
        for name in required:
            forms = [{"required": [a], "properties": {a: {"required": [b]}}} for a, b in nested.get(name, [])]
            either += [{"anyOf": [{"required": [name]}, *forms]}] if forms else []
        if either:
            json["allOf"] = either
        return reference


def to_pydantic(signature: Signature, base: type[Component] = Component) -> type[Component]:
    """A strict model of a signature: unknown arguments are refused, missing and wrong ones told.

    Args:
        signature: of a registered component.
        base: section to add the arguments to; its own keys are no arguments.

    Raises:
        RegistryError: an argument has the name of a key that recipes use themselves.

    Example:
        >>> from flowclf import registry
        >>> from flowclf.signatures import arguments
        >>> model = to_pydantic(arguments(registry.subnets, "dense"))
        >>> model.model_validate({"width": 32}).arguments
        {'width': 32, 'hidden_layers': 2}
    """
    fields: dict[str, Any] = {}
    for argument in signature.arguments:
        if argument.name in base.by_key():
            raise RegistryError(
                f"{signature.kind} '{signature.name}' cannot be used in a recipe: its argument '{argument.name}' has the name "
                "of a key that recipes use themselves"
            )
        about: dict[str, Any] = {"alias": argument.name, "description": argument.description or None}
        if argument.default is not UNKNOWN:
            about["default"] = _without_tuples(argument.default)
        elif not argument.required:
            about |= {"default_factory": lambda: UNKNOWN, "validate_default": False}
        # The prefix keeps an argument called `copy` or `json` from hiding a method of pydantic's.
        fields[f"argument_{argument.name}"] = (argument.type, Field(**about))
    body: dict[str, Any] = {
        "__module__": __name__,
        "nestable": frozenset(argument.name for argument in signature.arguments),
        "model_config": ConfigDict(extra="allow" if signature.accepts_any else "forbid"),
    }
    parent: Any = type(base.__name__, (base,), body)
    return cast(type[Component], create_model(signature.name, __base__=parent, __doc__=signature.summary, **fields))


def _without_tuples(value: Any) -> Any:
    match value:
        case list() | tuple():
            return [_without_tuples(item) for item in value]
        case dict():
            return {key: _without_tuples(item) for key, item in value.items()}
    return value
