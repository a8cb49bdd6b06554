"""Sections of settings: strict models of plain data, whose errors say what was found and where.

Data from YAML are checked as JSON, in pydantic's strict mode: a list fills a tuple or a set, a text fills a path or an enum,
``true`` is not 1, and 1.0 is not an integer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from flowclf.errors import UsageError
from flowclf.registry import nearest

UNKNOWN_KEY, MISSING_KEY, BAD_VALUE = "unknown_key", "missing_key", "bad_value"
"""Types of errors, which are located at a key, at the mapping that lacks a key, and at a value."""

Place = tuple[int | str, ...]
"""Keys and indices from the outermost mapping inwards."""

S = TypeVar("S", bound=BaseModel)

# A section that is wrong throughout is wrong in the same way; searching for near names further would only take time.
_ENOUGH_PROBLEMS = 50
_MISSING = ("missing", MISSING_KEY)
# In JSON mode pydantic speaks of JSON's types.
_OF_YAML = {"Input should be an object": "expected a mapping", "Input should be a valid array": "expected a list"}


class LeftOut:
    """Stands for a default that only code can write; the component fills it in."""


class Section(BaseModel):
    """A mapping with fixed keys, strictly checked."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The valid keys, as written, and their fields."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def problem(message: str, place: Place = (), kind: str = BAD_VALUE) -> InitErrorDetails:
    """One error for pydantic."""
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": message}), loc=place, input=None)


def failure(*problems: InitErrorDetails) -> ValidationError:
    """The exception that a validator raises; pydantic puts the places below the one where the validator was called."""
    return ValidationError.from_exception_data("flowclf", list(problems))


def located(error: ValidationError, *prefix: int | str) -> list[InitErrorDetails]:
    """The errors of a section that :func:`check` refused, to be raised again further up."""
    return [problem(e["msg"], (*prefix, *e["loc"]), e["type"]) for e in error.errors(include_url=False)]


def check(model: type[S], data: Any) -> S:
    """Plain data as a :class:`Section`; a section of that type is returned as it is.

    Raises:
        ValidationError: if the data are not a mapping, a key is unknown or missing, or a value is not valid. Each error is of type
            :data:`UNKNOWN_KEY`, :data:`MISSING_KEY` or :data:`BAD_VALUE`, and its place is that in ``data``.
    """
    if isinstance(data, model):
        return data
    if not isinstance(data, Mapping):
        raise failure(problem(f"expected a mapping, found {found(data)}"))
    try:
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise failure(*_problems(error, model, data)) from None


def first_problem(error: ValidationError) -> str:
    """The first error, with its location, on one line.

    Example:
        >>> from flowclf.settings import TrainSettings
        >>> try:
        ...     check(TrainSettings, {"epochs": 0, "ema": 2})
        ... except ValidationError as error:
        ...     first_problem(error)
        'epochs: Input should be greater than or equal to 1, found 0, and 1 more'
    """
    first, *others = _lines(error)
    return f"{first}, and {len(others)} more" if others else first


def _lines(error: ValidationError, *prefix: str) -> list[str]:
    items = error.errors(include_url=False, include_input=False)
    return [": ".join(filter(None, (".".join(map(str, (*prefix, *item["loc"]))), item["msg"]))) for item in items]


def from_code(model: type[S], value: S | Mapping[str, Any], where: str) -> S:
    """A section that code gives, as the section itself or as a mapping of its keys.

    Raises:
        UsageError: if :func:`check` would raise, in the same words after ``where``, the name of the argument.

    Example:
        >>> class Term(Section):
        ...     weight: float = 1.0
        >>> from_code(Term, {"weight": 2}, "likelihood")
        Term(weight=2.0)
    """
    try:
        return check(model, value if isinstance(value, model) else plain(value))
    except ValidationError as error:
        raise UsageError("; ".join(_lines(error, where))) from None
    except TypeError as error:
        raise UsageError(f"{where}: {error}") from None


def plain(value: Any) -> Any:
    """A value as YAML and JSON have it: an enum is its value, a section or data class a mapping, a set or tuple a list.

    Raises:
        TypeError: if it is any other value, e.g. a module or a function.

    Example:
        >>> plain({"sizes": {3, 1}, "pair": (1, 2)})
        {'sizes': [1, 3], 'pair': [1, 2]}
    """
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | float() | str():
            return value
        case BaseModel():
            given = {info.alias or name: getattr(value, name) for name, info in type(value).model_fields.items()}
            items = given | (value.model_extra or {})
            return {key: plain(items[key]) for key in sorted(items, key="name".__ne__) if items[key] is not LeftOut}
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError("expected keys that are text")
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            # The order of a set of texts changes from process to process.
            return sorted(map(plain, value), key=lambda item: (str(type(item)), item))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    try:
        return to_jsonable_python(value)
    except ValueError:
        raise TypeError(f"expected plain data, found an object of type {type(value).__name__}") from None


def found(value: Any) -> str:
    """A value as a message shows it: as YAML writes it, shortened.

    Example:
        >>> found(True), found(None), found("abc"), found([1, 2])
        ('true', 'null', "'abc'", 'a list')
    """
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case str():
            return f"'{value}'" if len(value) <= 60 else f"'{value[:60]}...'"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case Mapping():
            return "a mapping" if value else "an empty mapping"
    return str(value)[:60]


def unknown_key(key: Any, valid: Any) -> str:
    """The message for a key that is none of the valid ones."""
    return f"unknown key {found(key)}{nearest(str(key)[:80], valid)}"


def _problems(error: ValidationError, model: type[BaseModel], data: Any) -> list[InitErrorDetails]:
    """The errors of pydantic at their places in ``data``; those of a union's members become one."""
    messages: dict[Place, dict[str, str]] = {}
    items = [(*_follow(item, data), item) for item in error.errors(include_url=False)]
    # In a union, the member that got furthest is the one that was meant.
    deeper = {union for place, union, _, _ in items if union is not None and len(place) > len(union)}
    for place, union, value, item in items:
        if (union != place or union not in deeper) and (place in messages or len(messages) < _ENOUGH_PROBLEMS):
            kind, message = _in_words(item, place, value, model)
            messages.setdefault(place, {}).setdefault(message, kind)
    return [problem(_joined(list(kinds)), place, next(iter(kinds.values()))) for place, kinds in messages.items()]


def _follow(item: Any, data: Any) -> tuple[Place, Place | None, Any]:
    """The place of an error, that of the outermost union it came through, and the value there.

    pydantic puts the names of a union's members between the keys; they are in no data.
    """
    place: list[int | str] = []
    union: Place | None = None
    value, parts = data, item["loc"]
    for index, part in enumerate(parts):
        inside = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if inside or (isinstance(value, Mapping) and part in value):
            value = value[part]
        elif index < len(parts) - 1 or item["type"] not in _MISSING or isinstance(part, int):
            union = tuple(place) if union is None else union
            continue
        place.append(part)
    return tuple(place), union, value


def _in_words(item: Any, place: Place, value: Any, model: type[BaseModel]) -> tuple[str, str]:
    kind, message = item["type"], item["msg"]
    if kind in (UNKNOWN_KEY, MISSING_KEY, BAD_VALUE):
        return kind, message
    fields = {key: info for one in _models_at(model, place[:-1]) for key, info in keys_of(one).items()}
    if kind == "extra_forbidden":
        return UNKNOWN_KEY, unknown_key(place[-1], fields)
    if kind == "missing" and item["loc"] and isinstance(item["loc"][-1], int):
        return BAD_VALUE, f"expected more items, found a list of {len(value)}"
    if kind == "missing":
        about = fields[str(place[-1])].description if place and place[-1] in fields else None
        return MISSING_KEY, f"missing ({about.rstrip('.')})" if about else "missing"
    for theirs, ours in _OF_YAML.items():
        message = message.replace(theirs, ours)
    # Errors of a length, and those that a component raises itself, say already what was found.
    complete = ", not " in message or kind in ("value_error", "assertion_error")
    return BAD_VALUE, message.removeprefix("Value error, ") if complete else f"{message}, found {found(value)}"


def _joined(messages: list[str]) -> str:
    """The messages of a union's members in one sentence: all found the same."""
    first, *others = [message.partition(", found ")[0] for message in messages]
    tail = messages[0].removeprefix(first)
    return " or ".join([first, *(other.removeprefix("Input should be ") for other in others)]) + tail


def _models_at(model: type[BaseModel], place: Place) -> list[type[BaseModel]]:
    models = [model]
    for part in place:
        infos = [keys_of(one)[part] for one in models if isinstance(part, str) and part in keys_of(one)]
        models = [one for info in infos for one in _models_in(info.annotation)] if infos else models
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
