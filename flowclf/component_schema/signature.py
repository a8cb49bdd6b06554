"""Sections made from signatures: the annotations of a component decide which plain data it takes.

They become a pydantic model, so that all annotations are honoured: limits, enums (by value), literals, sets and tuples (lists in
YAML), paths, and data classes, typed dictionaries and pydantic models (nested sections). An argument that only code can give, such
as a module or a function, is an error if it is required, and left out of the section otherwise.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, Required, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import PydanticCustomError, core_schema

from flowclf.component_schema.sections import LeftOut, Section, found, keys_of, plain

C = TypeVar("C", bound="Component")


class Component(Section):
    """A section whose keys are, besides its own, the arguments of one registered component."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The component's keyword arguments as it declares them, every default that plain data can say filled in."""
        values = {info.alias: getattr(self, name) for name, info in type(self).model_fields.items() if info.alias}
        return {name: value for name, value in (values | (self.model_extra or {})).items() if value is not LeftOut}


class OnlyCode:
    """The type of an argument that is an object: no recipe can give it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        message = "expected an object that only code can give"
        return core_schema.custom_error_schema(core_schema.is_instance_schema(cls), "only_code", custom_error_message=message)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"not": {}}


class Reference:
    """Base of annotations whose values name registered components; such a value is checked by the annotation alone."""


def section_of(component: Any, name: str, base: type[C], without: Iterable[str] = ()) -> type[C]:
    """The section ``name`` of a component's arguments but those in ``without``, with the further keys of ``base``.

    Raises:
        TypeError: if an annotation is not a type, or an argument has the name of a key of ``base``.

    Example:
        >>> def conv(*, width: int = 64): ...
        >>> section_of(conv, "conv", Component).model_validate({"width": 32}).arguments
        {'width': 32}
    """
    arguments, is_open = _arguments(component)
    taken = [argument for argument in arguments if argument.name not in without]
    if clash := next((one.name for one in taken if one.name in keys_of(base)), None):
        raise TypeError(f"its argument '{clash}' has the name of a key that recipes use themselves")
    try:
        return _section(name, taken, base, is_open, inspect.getdoc(component) or "")
    except (PydanticUserError, ValueError, RecursionError) as error:
        raise TypeError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class _Argument:
    """An argument of a component, or a field of a data class or typed dictionary."""

    name: str
    hint: Any
    default: Any = inspect.Parameter.empty
    description: str = ""


def _arguments(component: Any) -> tuple[list[_Argument], bool]:
    """The keyword arguments of a function, or of a class's ``__init__``; and whether it takes others too."""
    function = component
    while isinstance(function, functools.partial):
        function = function.func
    documented = [function]
    if inspect.isclass(function):
        documented = list(function.__mro__)
        owner = next(one for one in documented if "__init__" in vars(one))
        # nn.Module's takes anything and uses nothing.
        if owner is object or owner.__module__ == "torch.nn.modules.module":
            return [], False
        documented.insert(1, function := owner.__init__)
    try:
        parameters = inspect.signature(component).parameters.values()
    except (TypeError, ValueError):
        return [], True
    hints, described = _hints(function), _descriptions(documented)
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments = [
        _Argument(one.name, hints.get(one.name, one.annotation), one.default, described.get(one.name, ""))
        for one in parameters
        if one.kind in kinds
    ]
    return arguments, any(one.kind is one.VAR_KEYWORD for one in parameters)


def _hints(function: Any) -> dict[str, Any]:
    """The annotations, evaluated; only code can give what has a name that is imported for type checkers alone."""
    function = inspect.unwrap(function)
    names = getattr(function, "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        try:
            hints |= get_type_hints(types.SimpleNamespace(__annotations__={name: annotation}), names, include_extras=True)
        except (NameError, AttributeError):
            hints[name] = OnlyCode
    return hints


def _section(title: str, arguments: Iterable[_Argument], base: type[C], is_open: bool = False, doc: str = "") -> type[C]:
    fields: dict[str, Any] = {}
    for argument in arguments:
        declared, required = _declared(argument.hint), argument.default is inspect.Parameter.empty
        if declared is OnlyCode and not required:
            continue
        description = "an object that only code can give" if declared is OnlyCode else argument.description or None
        about: dict[str, Any] = {"alias": argument.name, "description": description}
        if not required:
            declared, default = _with_default(declared, argument.default)
            about |= default
        # The prefix keeps an argument called `copy` or `json` from hiding a method of pydantic's.
        fields[f"argument_{argument.name}"] = (declared, Field(**about))
    config = ConfigDict(extra="allow" if is_open else "forbid")
    parent: Any = type(base.__name__, (base,), {"__module__": __name__, "model_config": config})
    return cast(type[C], create_model(title, __base__=parent, __doc__=doc.partition("\n")[0], **fields))


def _with_default(declared: Any, default: Any) -> tuple[Any, dict[str, Any]]:
    """The type, and the default as it would be if a recipe gave it."""
    if default is None:
        declared = Union[declared, None]  # noqa: UP007 - as some types take no bar
    try:
        text = json.dumps(plain(default), allow_nan=False)
    except (TypeError, ValueError):
        return declared, {"default_factory": lambda: LeftOut}
    try:
        return declared, {"default": TypeAdapter(declared).validate_json(text, strict=True)}
    except ValidationError:
        # A default that its own annotation refuses is none.
        return declared, {}


def _declared(hint: Any) -> Any:
    """A type that plain data can fill; :class:`OnlyCode` if they cannot."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (inspect.Parameter.empty, None, type(None)):
        return Any if hint is inspect.Parameter.empty else None
    if isinstance(hint, type) and origin is None:
        return _declared_class(hint)
    if origin is Literal:
        return Annotated[hint, _exactly(arguments)]
    if origin in (collections.abc.Callable, type):
        return OnlyCode
    if origin is Annotated:
        if any(isinstance(item, Reference) for item in arguments[1:]):
            return hint
        inner = _declared(arguments[0])
        return inner if inner is OnlyCode else Annotated[(inner, *arguments[1:])]
    inside = [item if item is ... else _declared(item) for item in arguments]
    if origin in (Union, types.UnionType):
        members = [item for item in inside if item is not OnlyCode]
        # A section can always be given as a mapping.
        if any(_is_section(item) for item in members):
            members = [item for item in members if get_origin(item) not in (dict, collections.abc.Mapping)]
        return Union[tuple(members)] if any(item is not None for item in members) else OnlyCode  # noqa: UP007
    if OnlyCode in inside:
        return OnlyCode
    return _if_known(origin[tuple(inside)] if origin is not None and inside else hint)


def _is_section(declared: Any) -> bool:
    bare = get_args(declared)[0] if get_origin(declared) is Annotated else declared
    return isinstance(bare, type) and issubclass(bare, BaseModel)


def _if_known(hint: Any) -> Any:
    try:
        TypeAdapter(hint)
    except (PydanticUserError, PydanticUndefinedAnnotation):
        return OnlyCode
    return hint


def _declared_class(hint: type) -> Any:
    if typing.is_typeddict(hint):
        total = getattr(hint, "__total__", True)
        fields = [_typed_field(name, item, total) for name, item in get_type_hints(hint, include_extras=True).items()]
        return Annotated[_section(hint.__name__, fields, Component), AfterValidator(lambda section: section.arguments)]
    if dataclasses.is_dataclass(hint):
        made: Callable[..., Any] = hint
        return Annotated[_section(hint.__name__, _arguments(hint)[0], Component), AfterValidator(lambda s: made(**s.arguments))]
    if issubclass(hint, BaseModel):
        model: type[BaseModel] = hint
        if model.model_config.get("extra") is not None:
            return model
        strict = type(model.__name__, (model,), {"__module__": __name__, "model_config": ConfigDict(extra="forbid")})
        return Annotated[strict, AfterValidator(lambda own: model.model_construct(own.model_fields_set, **dict(own)))]
    if issubclass(hint, Enum):
        return Annotated[hint, _exactly([item.value for item in hint])]
    return OnlyCode if hint in (collections.abc.Callable, type) else _if_known(hint)


def _typed_field(name: str, hint: Any, total: bool) -> _Argument:
    """A field of a typed dictionary; it is left out if it is neither required nor given."""
    marked = get_origin(hint) in (Required, NotRequired)
    required = get_origin(hint) is Required if marked else total
    return _Argument(name, get_args(hint)[0] if marked else hint, inspect.Parameter.empty if required else LeftOut())


def _exactly(choices: Iterable[Any]) -> BeforeValidator:
    """One of some values: to Python, and so to pydantic, ``True == 1``, which a recipe does not mean."""
    types_of = {type(choice) for choice in choices}
    # An integer may be written for a number of the same value.
    types_of |= {int} if float in types_of else set()
    shown = " or ".join(map(found, choices))

    def exact(value: Any) -> Any:
        if type(value) not in types_of:
            raise PydanticCustomError("literal_error", "Input should be {shown}", {"shown": shown})
        return value

    return BeforeValidator(exact)


_ENTRY = re.compile(r"^(\s*)\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)$")


def _descriptions(documented: Iterable[Any]) -> dict[str, str]:
    """Argument -> description, from the ``Args:`` sections of Google-style docstrings; the first that has it counts."""
    described: dict[str, str] = {}
    for one in documented:
        text = inspect.cleandoc(getattr(one, "__doc__", None) or "")
        _, _, section = text.partition("\nArgs:\n")
        entries: dict[str, list[str]] = {}
        name, indent = "", None
        for line in section.splitlines():
            if line.strip() and not line.startswith(" "):
                break
            entry = _ENTRY.match(line)
            if entry and (indent is None or len(entry[1]) <= indent):
                indent, name = len(entry[1]), entry[2]
                entries[name] = [entry[3]]
            elif name and line.strip():
                entries[name].append(line.strip())
        described = {**{key: " ".join(words).strip() for key, words in entries.items()}, **described}
    return described
