"""Source text of installed modules, and the definition of a name in them; nothing is imported.

Only the finding of definitions belongs here. What a definition says is read in :mod:`flowclf.signatures.reading`.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Module", "definition", "find_module"]

_MAXIMUM_HOPS = 8

Definition = ast.FunctionDef | ast.ClassDef | ast.expr


@dataclass(frozen=True, eq=False)
class Module:
    """The syntax tree of a module.

    Attributes:
        name: dotted name.
        package: dotted name of the package that its relative imports start from.
        definitions: functions, classes and assigned expressions at the top level, by name.
        imports: names bound by ``from module import name``, as (module, name).
    """

    name: str
    package: str
    definitions: dict[str, Definition] = field(repr=False)
    imports: dict[str, tuple[str, str]] = field(repr=False)


def _specification(name: str) -> importlib.machinery.ModuleSpec | None:
    # importlib.util.find_spec("a.b") imports a, and with it whatever a imports; walking down from the top does not.
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for depth, _ in enumerate(rest, start=2):
        if spec is None or spec.submodule_search_locations is None:
            return None
        qualified = ".".join(name.split(".")[:depth])
        spec = importlib.machinery.PathFinder.find_spec(qualified, spec.submodule_search_locations)
    return spec


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _top_level(statement.body + statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from _top_level(statement.body + [s for handler in statement.handlers for s in handler.body])
        else:
            yield statement


def _absolute(module: str | None, level: int, package: str) -> str:
    if not level:
        return module or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - level + 1])
    return f"{base}.{module}" if module else base


@functools.cache
def find_module(name: str) -> Module | None:
    """The syntax tree of an installed module; None where there is no source.

    Raises:
        SyntaxError: the source is not valid Python.
    """
    spec = _specification(name)
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    try:
        source = get_source(name) if get_source else None
    except ImportError:
        source = None
    if spec is None or source is None:
        return None
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    definitions: dict[str, Definition] = {}
    imports: dict[str, tuple[str, str]] = {}
    for statement in _top_level(ast.parse(source).body):
        match statement:
            case ast.FunctionDef() | ast.ClassDef():
                definitions[statement.name] = statement
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                definitions[target] = value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value):
                definitions[target] = value
            case ast.ImportFrom():
                origin = _absolute(statement.module, statement.level, package)
                imports.update({alias.asname or alias.name: (origin, alias.name) for alias in statement.names})
    return Module(name, package, definitions, imports)


def definition(module: Module, name: str) -> tuple[Module, Definition] | None:
    """Where a module's name is defined, following imports within its own distribution's top-level package; None if unknown.

    Other packages are not followed: what they define is not this component's to declare, and torch is slow to parse.
    """
    top = module.name.partition(".")[0]
    for _ in range(_MAXIMUM_HOPS):
        if name in module.definitions:
            return module, module.definitions[name]
        origin, name = module.imports.get(name, ("", name))
        found = find_module(origin) if origin.partition(".")[0] == top else None
        if found is None:
            return None
        module = found
    return None
