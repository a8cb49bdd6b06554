"""The arguments of a registered component, read from its definition or, where there is no source, from the object."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowclf.errors import RegistryError
from flowclf.registry import Registry
from flowclf.signatures.annotations import FromCode, Scope, resolve
from flowclf.signatures.sources import Definition, Module, definition, find_module

__all__ = ["UNKNOWN", "Argument", "Signature", "arguments"]


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
"""The default of an argument whose default is an expression that only code can evaluate."""

# What the builder of a graph, a coupling or a classifier passes itself.
_SUPPLIED = {
    "nodes": {"dims_in", "dims_c", "classes"},
    "subnets": {"channels_in", "channels_out"},
}


@dataclass(frozen=True)
class Argument:
    """One keyword argument of a component.

    Attributes:
        name: its name.
        type: a type of :mod:`flowclf.signatures.annotations`.
        required: whether it has no default.
        default: the default; UNKNOWN where it is not a literal.
        description: from the docstring, on one line.
    """

    name: str
    type: Any
    required: bool
    default: Any = UNKNOWN
    description: str = ""


@dataclass(frozen=True)
class Signature:
    """What a recipe can give to a component.

    Attributes:
        kind: what the component is, e.g. ``node``.
        name: the registered name.
        arguments: in the order of the definition.
        accepts_any: whether it takes other arguments too (``**kwargs``).
        summary: first line of the docstring.
    """

    kind: str
    name: str
    arguments: tuple[Argument, ...]
    accepts_any: bool = False
    summary: str = ""


@dataclass
class _Parts:
    """What is gathered from a function, or from a class and its bases."""

    arguments: dict[str, Argument] = field(default_factory=dict)
    accepts_any: bool = False
    docstrings: list[str] = field(default_factory=list)


def arguments(registry: Registry, name: str) -> Signature:
    """The signature of a registered component; a component from an installed package is not imported.

    Arguments are the keyword arguments of a function, or of the ``__init__`` of a class or of the nearest base of the same
    package that has one. What a builder supplies is left out: ``dims_in``, ``dims_c`` and ``classes`` of a node,
    ``channels_in`` and ``channels_out`` of a subnet; so is an optional argument that only code can give.

    Raises:
        RegistryError: the name is not registered, or its source cannot be parsed.

    Example:
        >>> from flowclf import registry
        >>> [(a.name, a.default) for a in arguments(registry.subnets, "dense").arguments]
        [('width', 128), ('hidden_layers', 2)]
    """
    target = registry.target(name)
    parts = None
    if isinstance(target, tuple) and len(target) == 2:
        try:
            module = find_module(target[0])
            found = definition(module, target[1]) if module else None
        except SyntaxError as error:
            raise RegistryError(f"{registry.kind} '{name}' cannot be loaded from {target[0]}: {error}") from error
        parts = _read_definition(*found) if found else None
    if parts is None:
        parts = _read_object(registry.get(name))
    described = _descriptions(parts.docstrings)
    supplied = _SUPPLIED.get(registry.group.rpartition(".")[2], set())
    kept = [
        Argument(a.name, a.type, a.required, a.default, described.get(a.name, ""))
        for a in parts.arguments.values()
        if a.name not in supplied and (a.required or a.type is not FromCode)
    ]
    summary = inspect.cleandoc(parts.docstrings[0]).partition("\n")[0] if parts.docstrings else ""
    return Signature(registry.kind, name, tuple(kept), parts.accepts_any, summary)


def _scope(module: Module) -> Scope:
    def find(name: str) -> tuple[ast.expr, Scope] | None:
        found = definition(module, name)
        return (found[1], _scope(found[0])) if found and isinstance(found[1], ast.expr) else None

    return find


def _read_definition(module: Module, node: Definition) -> _Parts | None:
    parts = _Parts()
    if isinstance(node, ast.FunctionDef):
        _read_function(module, node, parts)
        return parts
    if not isinstance(node, ast.ClassDef):
        return None
    for home, cls in _lineage(module, node):
        if doc := ast.get_docstring(cls):
            parts.docstrings.append(doc)
        init = next((s for s in cls.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
        if init is not None:
            _read_function(home, init, parts)
            parts.docstrings += [doc for _, base in _lineage(home, cls) if base is not cls and (doc := ast.get_docstring(base))]
            break
        if any("dataclass" in ast.dump(decorator) for decorator in cls.decorator_list):
            return None
    return parts


def _lineage(module: Module, cls: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef]]:
    """A class and its bases, as far as they are defined in the same package, depth first."""
    yield module, cls
    for base in cls.bases:
        found = definition(module, base.id) if isinstance(base, ast.Name) else None
        if found and isinstance(found[1], ast.ClassDef) and found[1] is not cls:
            yield from _lineage(found[0], found[1])


def _read_function(module: Module, function: ast.FunctionDef, parts: _Parts) -> None:
    if doc := ast.get_docstring(function):
        parts.docstrings.append(doc)
    given = function.args
    scope = _scope(module)
    positional: list[ast.expr | None] = [*given.defaults]
    padding: list[ast.expr | None] = [None] * (len(given.args) - len(positional))
    pairs = [
        *zip(given.args, padding + positional, strict=False),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        if argument.arg not in ("self", "cls"):
            value = _literal(default, scope) if default is not None else UNKNOWN
            kind = resolve(argument.annotation, scope) if argument.annotation else Any
            parts.arguments[argument.arg] = Argument(argument.arg, kind, default is None, value)
    parts.accepts_any = given.kwarg is not None


def _literal(expression: ast.expr, scope: Scope) -> Any:
    if isinstance(expression, ast.Name) and (meaning := scope(expression.id)) and isinstance(meaning[0], ast.expr):
        expression = meaning[0]
    try:
        value = ast.literal_eval(expression)
    except ValueError:
        return UNKNOWN
    return value if _is_plain(value) else UNKNOWN


def _is_plain(value: Any) -> bool:
    match value:
        case list() | tuple():
            return all(map(_is_plain, value))
        case dict():
            return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def _read_object(component: Any) -> _Parts:
    parts = _Parts(docstrings=[doc for doc in (getattr(component, "__doc__", None),) if doc])
    try:
        signature = inspect.signature(component)
    except (TypeError, ValueError):
        parts.accepts_any = True
        return parts
    function = component.__init__ if inspect.isclass(component) else component
    names = getattr(inspect.unwrap(function), "__globals__", {})

    def scope(name: str) -> tuple[str, Scope] | None:
        return (inspect.formatannotation(names[name]), scope) if name in names else None

    for parameter in signature.parameters.values():
        match parameter.kind:
            case parameter.VAR_KEYWORD:
                parts.accepts_any = True
            case parameter.KEYWORD_ONLY | parameter.POSITIONAL_OR_KEYWORD:
                annotation, default = parameter.annotation, parameter.default
                text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
                kind = Any if annotation is parameter.empty else resolve(text, scope)
                required = default is parameter.empty
                value = default if not required and _is_plain(default) else UNKNOWN
                parts.arguments[parameter.name] = Argument(parameter.name, kind, required, value)
    return parts


_ENTRY = re.compile(r"^(\s*)\*{0,2}(\w+)(?: \([^)]*\))?:\s*(.*)$")


def _descriptions(docstrings: list[str]) -> dict[str, str]:
    """Argument -> description, from the ``Args:`` sections of Google-style docstrings; the first that has it counts."""
    described: dict[str, str] = {}
    for docstring in docstrings:
        lines = iter(inspect.cleandoc(docstring).splitlines())
        if not any(line.strip() == "Args:" for line in lines):
            continue
        name, indent, found = "", None, dict[str, list[str]]()
        for line in lines:
            if line.strip() and not line.startswith(" "):
                break
            entry = _ENTRY.match(line)
            if entry and (indent is None or len(entry[1]) <= indent):
                indent, name = len(entry[1]), entry[2]
                found[name] = [entry[3]]
            elif name and line.strip():
                found[name].append(line.strip())
        described = {**{key: " ".join(text).strip() for key, text in found.items()}, **described}
    return described
