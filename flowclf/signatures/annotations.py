"""Annotations to types that can be checked: a small resolver over the syntax tree that evaluates nothing.

A type here is what a recipe can hold: numbers, text, lists, mappings, and subnets by name. A tuple is a list of that length, for
YAML has no tuples. What the resolver does not know is ``Any``; what only code can pass, a module or a function, is
:class:`FromCode`.
"""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt

from flowclf import arguments

__all__ = ["Exact", "FromCode", "Registered", "Scope", "describe", "found", "resolve"]


class FromCode:
    """Marks an argument that is an object: a recipe cannot give it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from flowclf.signatures.components import nothing_schema

        return nothing_schema()


class Registered:
    """Marks a value that names a registered component: its name, or a mapping of its name to its arguments.

    Args:
        kind: key of :data:`flowclf.registry.registries`.
        alone: whether the name comes without arguments.
    """

    def __init__(self, kind: str, *, alone: bool = False) -> None:
        self.kind = kind
        self.alone = alone

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registered) and (other.kind, other.alone) == (self.kind, self.alone)

    def __hash__(self) -> int:
        return hash((self.kind, self.alone))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from flowclf.signatures.components import name_schema, spec_schema

        return name_schema(self.kind) if self.alone else spec_schema(self.kind)


class Exact:
    """Marks a choice among literals: ``true`` is not 1, and 1.0 is not either."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exact)

    def __hash__(self) -> int:
        return hash(Exact)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from flowclf.signatures.components import exact_schema

        return exact_schema(get_args(source), handler(source))


Scope = Callable[[str], "tuple[ast.expr | str, Scope] | None"]
"""What a name stands for: its expression, and the scope to read that in; None if unknown."""

SUBNET = Annotated[Any, Registered("subnets")]
TRANSFORMER = Annotated[Any, Registered("transformers")]

_SIMPLE: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "Path": str,
    "PathLike": str,
    "Any": Any,
    "object": Any,
    "list": list[Any],
    "tuple": list[Any],
    "dict": dict[str, Any],
    **{name: getattr(arguments, name) for name in arguments.__all__},
    "SubnetSpec": SUBNET,
    "TransformerSpec": TRANSFORMER,
    "TransformerName": Annotated[Any, Registered("transformers", alone=True)],
    **dict.fromkeys(("Callable", "Tensor", "Module", "Transformer", "Generator", "device", "dtype"), FromCode),
}
_ALIASES = {
    **dict.fromkeys(("Sequence", "Iterable", "Collection", "List"), "list"),
    **dict.fromkeys(("Mapping", "MutableMapping", "Dict"), "dict"),
    "Tuple": "tuple",
}
_LIMITS = {"Ge": Ge, "Gt": Gt, "Le": Le, "Lt": Lt}
_MAXIMUM_DEPTH = 20


def _nowhere(name: str) -> None:
    return None


def resolve(annotation: ast.expr | str | None, scope: Scope = _nowhere, depth: int = 0) -> Any:
    """The type that an annotation stands for.

    Args:
        annotation: an expression, or its text.
        scope: meaning of names that are not known here, such as a module's own aliases.
        depth: how many aliases and brackets enclose it already; too many, and it is ``Any``.

    Example:
        >>> resolve("Sequence[int]"), resolve("torch.nn.Module") is FromCode, resolve("Unheard[of]")
        (list[int], True, typing.Any)
    """
    if depth > _MAXIMUM_DEPTH:
        return Any
    inner = functools.partial(resolve, scope=scope, depth=depth + 1)
    match annotation:
        case str() | ast.Constant(value=str()):
            text = annotation if isinstance(annotation, str) else str(annotation.value)
            try:
                return inner(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return Any
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) | ast.Attribute(attr=name):
            if (known := _ALIASES.get(name, name)) in _SIMPLE:
                return _SIMPLE[known]
            meaning = scope(name) if isinstance(annotation, ast.Name) else None
            return resolve(meaning[0], meaning[1], depth + 1) if meaning else Any
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union([inner(left), inner(right)])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=index):
            items = index.elts if isinstance(index, ast.Tuple) else [index]
            return _subscripted(_ALIASES.get(name, name), items, inner)
    return Any


def _subscripted(name: str, items: list[ast.expr], inner: Callable[[ast.expr], Any]) -> Any:
    if not items:
        return Any
    match name, items:
        case "Literal", _:
            return _literal(items)
        case "Optional", [item]:
            return _union([inner(item), None])
        case "Union", _:
            return _union([inner(item) for item in items])
        case "Annotated", [item, *metadata]:
            return _limited(inner(item), metadata)
        case "list", [item]:
            return list[inner(item)]  # type: ignore[misc]
        case "tuple", [item, ast.Constant(value=value)] if value is ...:
            return list[inner(item)]  # type: ignore[misc]
        case "tuple", _:
            return Annotated[list[_union([inner(item) for item in items])], Len(len(items), len(items))]  # type: ignore[misc]
        case "dict", [_, item]:
            return dict[str, inner(item)]  # type: ignore[misc]
        case "Callable", _:
            return FromCode
    return Any


def _literal(items: list[ast.expr]) -> Any:
    try:
        choices = tuple(ast.literal_eval(item) for item in items)
    except ValueError:
        return Any
    plain = all(choice is None or isinstance(choice, str | int) for choice in choices)
    return Annotated[Literal[choices], Exact()] if plain else Any


def _limited(base: Any, metadata: list[ast.expr]) -> Any:
    limits = []
    for item in metadata:
        match item:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _LIMITS:
                values = [*item.args, *(keyword.value for keyword in item.keywords)]
                limits += [_LIMITS[name](value.value) for value in values if isinstance(value, ast.Constant)]
    return Annotated[(base, *limits)] if limits else base


def _union(members: list[Any]) -> Any:
    flat: list[Any] = []
    for member in members:
        flat += get_args(member) if _is_union(member) else [member]
    given = [member for member in flat if member is not FromCode]
    if str in given and dict[str, dict[str, Any]] in given:
        given = [SUBNET, *(member for member in given if member not in (str, dict[str, dict[str, Any]]))]
    if FromCode in flat and all(member in (None, type(None)) for member in given):
        return FromCode
    if any(spec in given and set(given) - {spec, None, type(None)} for spec in (SUBNET, TRANSFORMER)):
        return Any
    return Any if Any in given else Union[tuple(given)]  # noqa: UP007


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def describe(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """What a type accepts, in plain words.

    Example:
        >>> describe(arguments.PositiveInt | None)
        'an integer of at least 1, or null'
        >>> describe(list[Literal["a", "b"]])
        "a list, each 'a' or 'b'"
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(args[0], (*args[1:], *metadata))
    if named := next((item for item in metadata if isinstance(item, Registered)), None):
        return f"the name of one of the {named.kind}" + ("" if named.alone else ", or a mapping of its name to its arguments")
    if _is_union(annotation):
        return ", or ".join(describe(item) for item in sorted(args, key=lambda item: item is type(None)))
    if origin is Literal:
        return " or ".join(found(item) for item in args)
    if origin is list:
        items = "" if args[0] is Any else f", each {describe(args[0])}"
        length = next((item.min_length for item in metadata if isinstance(item, Len)), None)
        return f"a list{items}" if length is None else f"a list of {length} items{items}"
    if annotation in (int, float):
        return ("an integer" if annotation is int else "a number") + _limits(metadata)
    words: dict[Any, str] = {bool: "true or false", str: "text", type(None): "null", None: "null", Any: "any value"}
    if annotation is FromCode:
        return "an object that only code can give"
    return words.get(annotation, "a mapping")


def _limits(metadata: tuple[Any, ...]) -> str:
    low = next((item for item in metadata if isinstance(item, Ge | Gt)), None)
    high = next((item for item in metadata if isinstance(item, Le | Lt)), None)
    match low, high:
        case Ge(ge=a), Le(le=b):
            return f" from {a} to {b}"
        case Ge(ge=a), Lt(lt=b):
            return f" of at least {a} and less than {b}"
        case Gt(gt=a), Le(le=b):
            return f" greater than {a}, up to {b}"
        case Gt(gt=a), Lt(lt=b):
            return f" between {a} and {b}, both excluded"
    words = {Ge: " of at least ", Gt: " greater than ", Le: " of at most ", Lt: " less than "}
    return "".join(f"{words[type(item)]}{getattr(item, type(item).__name__.lower())}" for item in (low, high) if item)


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
        case dict():
            return "a mapping" if value else "an empty mapping"
    return str(value)
