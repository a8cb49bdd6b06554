"""What annotations say: of built-in components, and of anybody's, in a recipe."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Optional, TypedDict

import annotated_types
import pytest
import torch
from annotated_types import Ge, Interval
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from flowclf import registry
from flowclf.argument_types import SubnetSpec
from flowclf.component_schema.components import component_model
from flowclf.component_schema.sections import check, keys_of, plain
from flowclf.component_schema.signature import Component, section_of
from flowclf.errors import RecipeError, RegistryError
from flowclf.losses import Loss
from flowclf.recipe import dump, loads

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers

# A metric and a probe are objects, which no recipe gives arguments to.
KINDS = registry.registries.keys() - {"metrics", "probes"}
COMPONENTS = [(kind, name) for kind in sorted(KINDS) for name in registry.registries[kind].names()]
Fraction = Annotated[int, Interval(ge=1, le=9)]
"""A plug-in's own alias, with the name of one of flowclf's."""


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass(frozen=True)
class Window:
    """A window.

    Args:
        size: side, in pixels.
    """

    size: Annotated[int, Ge(1)]
    offsets: tuple[int, ...] = (0, 0)
    taps: list[float] = dataclasses.field(default_factory=lambda: [0.5])

    def __post_init__(self) -> None:
        if self.size > 100:
            raise ValueError("a window is at most 100 pixels wide")


class Range(TypedDict):
    low: float
    high: NotRequired[float]


class Filter(BaseModel):
    order: int = 2
    cutoff: float = Field(0.5, gt=0)


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    order: int = 2


class Node:
    pass


# name of the case -> (annotation, what a recipe gives, what the component gets)
ACCEPTED: dict[str, tuple[Any, str, Any]] = {
    "int": (int, "3", 3),
    "an int for a float": (float, "3", 3.0),
    "Field": (Annotated[int, Field(ge=1)], "1", 1),
    "Interval": (Annotated[float, annotated_types.Interval(gt=0, lt=1)], "0.5", 0.5),
    "Ge(-1)": (Annotated[int, Ge(-1)], "-1", -1),
    "an alias": (Fraction, "9", 9),
    "enum": (Mode, "fast", Mode.FAST),
    "IntEnum": (Level, "2", Level.HIGH),
    "set": (set[int], "[3, 1, 3]", {1, 3}),
    "frozenset of texts": (frozenset[str], "[b, a]", frozenset({"a", "b"})),
    "set of enums": (set[Mode], "[exact]", {Mode.EXACT}),
    "pair": (tuple[int, float], "[1, 2]", (1, 2.0)),
    "tuple": (tuple[int, ...], "[1, 2, 3]", (1, 2, 3)),
    "literal numbers": (Literal[0.5, 1.0], "0.5", 0.5),
    "an int for a literal float": (Literal[0.5, 1.0], "1", 1.0),
    "literal or null": (Literal["a", None], "null", None),
    "Path": (Path, "images/a", Path("images/a")),
    "Optional": (Optional[int], "null", None),  # noqa: UP045
    "a number or a list": (int | list[int], "[1, 2]", [1, 2]),
    "Sequence": (Sequence[int], "[1, 2]", [1, 2]),
    "Mapping": (Mapping[str, list[int]], "{a: [1]}", {"a": [1]}),
    "bare list": (list, "[1, a]", [1, "a"]),
    "data class": (Window, "{size: 3, offsets: [1]}", Window(3, (1,))),
    "data class or null": (Window | None, "{size: 3}", Window(3)),
    "list of data classes": (list[Window], "[{size: 3}]", [Window(3)]),
    "typed dictionary": (Range, "{low: 1}", {"low": 1.0}),
    "model": (Filter, "{order: 3}", Filter(order=3)),
    "a model that takes more": (Loose, "{other: 3}", Loose(other=3)),
    "model or mapping": (Filter | Mapping[str, Any], "{order: 3}", Filter(order=3)),
    "anything": (Any, "{a: [1, null]}", {"a": [1, None]}),
    "object": (object, "[1]", [1]),
    "no annotation": (inspect.Parameter.empty, "{a: 1}", {"a": 1}),
    "spec": (SubnetSpec, "dense", {"dense": {"width": 128, "hidden_layers": 2}}),
    "spec or function": (
        SubnetSpec | Callable[[int], int] | None,
        "{dense: {width: 3}}",
        {"dense": {"width": 3, "hidden_layers": 2}},
    ),
}

# (annotation, what a recipe gives, place below loss.x, what the message says)
REFUSED: dict[str, tuple[Any, str, str, str]] = {
    "true for an int": (int, "true", "", "Input should be a valid integer, found true"),
    "1.0 for an int": (int, "1.0", "", "Input should be a valid integer, found 1.0"),
    "text for an int": (int, "'1'", "", "Input should be a valid integer, found '1'"),
    "true for a float": (float, "true", "", "Input should be a valid number, found true"),
    "1 for a bool": (bool, "1", "", "Input should be a valid boolean, found 1"),
    "null for text": (str, "null", "", "Input should be a valid string, found null"),
    "Field": (Annotated[int, Field(ge=1)], "0", "", "greater than or equal to 1, found 0"),
    "Interval": (Annotated[float, annotated_types.Interval(gt=0, lt=1)], "1", "", "less than 1, found 1"),
    "Ge(-1)": (Annotated[int, Ge(-1)], "-2", "", "greater than or equal to -1, found -2"),
    "an alias": (Fraction, "10", "", "less than or equal to 9, found 10"),
    "enum by name": (Mode, "FAST", "", "Input should be 'fast' or 'exact', found 'FAST'"),
    "enum of true": (Level, "true", "", "Input should be 1 or 2, found true"),
    "enum of 1.0": (Level, "1.0", "", "Input should be 1 or 2, found 1.0"),
    "set": (set[int], "[1, a]", ".1", "Input should be a valid integer, found 'a'"),
    "no list for a set": (set[int], "3", "", "expected a list, found 3"),
    "short pair": (tuple[int, int], "[1]", "", "expected more items, found a list of 1"),
    "long pair": (tuple[int, int], "[1, 2, 3]", "", "at most 2 items"),
    "literal": (Literal[0.5, 1.0], "0.7", "", "Input should be 0.5 or 1.0, found 0.7"),
    "true for a literal": (Literal[1, 2], "true", "", "Input should be 1 or 2, found true"),
    "1.0 for a literal": (Literal[1, 2], "1.0", "", "Input should be 1 or 2, found 1.0"),
    "literal in a list": (list[Literal[1, 2]] | None, "[1, true]", ".1", "Input should be 1 or 2, found true"),
    "union": (int | list[int], "a", "", "Input should be a valid integer or expected a list, found 'a'"),
    "list in a union": (int | list[int], "[1, a]", ".1", "Input should be a valid integer, found 'a'"),
    "literal in a union": (Literal["a"] | int, "b", "", "Input should be 'a' or a valid integer, found 'b'"),
    "list of lists": (list[list[int]], "[[1], [2, a]]", ".1.1", "Input should be a valid integer, found 'a'"),
    "no mapping": (dict[str, int], "[1]", "", "expected a mapping, found a list"),
    "value of a mapping": (dict[str, int], "{a: b}", ".a", "Input should be a valid integer, found 'b'"),
    "Path": (Path, "3", "", "Input should be a valid string, found 3"),
    "key of a data class": (Window, "{sise: 3, size: 3}", ".sise", "unknown key 'sise'; did you mean 'size'?"),
    "missing key of a data class": (Window, "{}", ".size", "missing (side, in pixels)"),
    "limit in a data class": (Window, "{size: 0}", ".size", "greater than or equal to 1, found 0"),
    "tuple in a data class": (Window, "{size: 1, offsets: [a]}", ".offsets.0", "a valid integer, found 'a'"),
    "what a data class refuses": (Window, "{size: 101}", "", "a window is at most 100 pixels wide"),
    "data class in a union": (Window | None, "{sise: 3, size: 1}", ".sise", "did you mean 'size'?"),
    "data class in a list": (list[Window], "[{sise: 3, size: 1}]", ".0.sise", "did you mean 'size'?"),
    "no section": (Window, "3", "", "expected a mapping, found 3"),
    "key of a typed dictionary": (Range, "{low: 1, hihg: 2}", ".hihg", "unknown key 'hihg'; did you mean 'high'?"),
    "missing key of a typed dictionary": (Range, "{high: 1}", ".low", "missing"),
    "null in a typed dictionary": (Range, "{low: null}", ".low", "Input should be a valid number, found null"),
    "key of a model": (Filter, "{ordre: 3}", ".ordre", "unknown key 'ordre'; did you mean 'order'?"),
    "value in a model": (Filter, "{order: true}", ".order", "Input should be a valid integer, found true"),
    "limit in a model": (Filter, "{cutoff: 0}", ".cutoff", "greater than 0, found 0"),
    "key of a model or mapping": (Filter | Mapping[str, Any], "{ordre: 3}", ".ordre", "did you mean 'order'?"),
    "module": (nn.Module, "1", "", "expected an object that only code can give"),
    "tensor": (torch.Tensor, "[1]", "", "expected an object that only code can give"),
    "function": (Callable[[int], int], "print", "", "expected an object that only code can give"),
    "device": (torch.device, "cpu", "", "expected an object that only code can give"),
    "dtype": (torch.dtype, "float32", "", "expected an object that only code can give"),
    "class": (type[nn.Module], "Linear", "", "expected an object that only code can give"),
    "list of modules": (list[nn.Module], "[1]", "", "expected an object that only code can give"),
    "somebody's class": (Node, "{}", "", "expected an object that only code can give"),
    "spec": (SubnetSpec, "{dense: {widht: 3}}", ".dense.widht", "unknown key 'widht'; did you mean 'width'?"),
    "spec or function": (SubnetSpec | Callable[[int], int], "dnse", "", "unknown subnet 'dnse'; did you mean 'dense'?"),
}

RECIPE = "name: a\ndata: {name: mnist}\nmodel: {name: firevnet}\nloss: {name: test_plug_in, x: VALUE}\n"


@pytest.fixture
def plug_in(scratch_registries: None) -> Callable[..., None]:
    """Registers a loss with an argument ``x`` of an annotation."""

    def register(annotation: Any, default: Any = inspect.Parameter.empty) -> None:
        class PlugIn(Loss):
            """A loss.

            Args:
                x: what it needs.
            """

            def __init__(self, *, x: Any) -> None:
                super().__init__()
                self.x = x

        PlugIn.__init__.__annotations__["x"] = annotation
        parameters = [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default),
        ]
        PlugIn.__init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        if annotation is inspect.Parameter.empty:
            del PlugIn.__init__.__annotations__["x"]
        registry.losses.register("test_plug_in")(PlugIn)

    return register


@pytest.mark.parametrize("case", ACCEPTED)
def test_an_annotation_is_honoured_in_a_recipe(case: str, plug_in: Callable[..., None]) -> None:
    annotation, text, expected = ACCEPTED[case]
    plug_in(annotation)
    recipe = loads(RECIPE.replace("VALUE", text)).recipe
    given = recipe.loss.arguments["x"]
    assert given == expected
    if not isinstance(expected, BaseModel):
        assert type(given) is type(expected)
    assert loads(dump(recipe)).recipe == recipe
    assert loads(dump(recipe)).recipe.loss.arguments["x"] == expected


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_annotation_excludes_is_refused_at_its_place(case: str, plug_in: Callable[..., None]) -> None:
    annotation, text, place, words = REFUSED[case]
    plug_in(annotation)
    with pytest.raises(RecipeError) as caught:
        loads(RECIPE.replace("VALUE", text))
    (problem,) = caught.value.problems
    assert problem.location == f"loss.x{place}"
    assert words in problem.message
    assert (problem.line, problem.column >= RECIPE.splitlines()[3].index("x:") + 1) == (4, True)


@pytest.mark.parametrize("annotation", [nn.Module, torch.Tensor, Callable[[int], int], torch.device, torch.dtype, Node])
def test_what_only_code_can_give_is_missing_if_it_is_required(annotation: Any, plug_in: Callable[..., None]) -> None:
    plug_in(annotation)
    with pytest.raises(RecipeError, match=r"loss\.x: missing \(an object that only code can give\)"):
        loads(RECIPE.replace(", x: VALUE", ""))


@pytest.mark.parametrize("annotation", [nn.Module, nn.Module | None, Callable[[int], int] | None, torch.device])
def test_what_only_code_can_give_is_left_out_if_it_is_optional(annotation: Any, plug_in: Callable[..., None]) -> None:
    plug_in(annotation, default=None)
    assert loads(RECIPE.replace(", x: VALUE", "")).recipe.loss.arguments == {}
    with pytest.raises(RecipeError, match="unknown key 'x'"):
        loads(RECIPE.replace("VALUE", "1"))


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (Mode, Mode.FAST, Mode.FAST),
        (set[int], {2, 1}, {1, 2}),
        (Sequence[int], (1, 2), [1, 2]),
        (Path, Path("a"), Path("a")),
        (Window, Window(3), Window(3)),
        (Filter | Mapping[str, Any], Filter(order=3), Filter(order=3)),
        (int, None, None),
        (SubnetSpec, "dense", {"dense": {"width": 128, "hidden_layers": 2}}),
    ],
)
def test_a_default_is_filled_in_and_dumped(annotation: Any, default: Any, expected: Any, plug_in: Callable[..., None]) -> None:
    plug_in(annotation, default=default)
    recipe = loads(RECIPE.replace(", x: VALUE", "")).recipe
    assert recipe.loss.arguments == {"x": expected}
    assert loads(dump(recipe)).recipe == recipe


@pytest.mark.parametrize("default", [object(), float("inf"), nn.Identity()])
def test_a_default_that_a_recipe_cannot_say_is_left_to_the_component(default: Any, plug_in: Callable[..., None]) -> None:
    plug_in(float if isinstance(default, float) else Any, default=default)
    recipe = loads(RECIPE.replace(", x: VALUE", "")).recipe
    assert recipe.loss.arguments == {}
    assert loads(dump(recipe)).recipe == recipe
    assert loads(RECIPE.replace("VALUE", "1")).recipe.loss.arguments == {"x": 1}


def test_a_default_that_its_own_annotation_refuses_must_be_given(plug_in: Callable[..., None]) -> None:
    plug_in(Annotated[int, Ge(1)], default=0)
    with pytest.raises(RecipeError, match=r"loss\.x: missing \(what it needs\)"):
        loads(RECIPE.replace(", x: VALUE", ""))


# signatures


def test_an_annotation_for_type_checkers_alone_is_an_object() -> None:
    def component(*, size: int, price: OnlyForTypeCheckers | None = None, must: OnlyForTypeCheckers) -> None: ...

    model = section_of(component, "component", Component)
    assert set(keys_of(model)) == {"size", "must"}
    with pytest.raises(ValidationError, match="an object that only code can give"):
        check(model, {"size": 1, "must": 3})


def test_a_class_that_inherits_its_init_has_its_arguments_and_descriptions() -> None:
    class Base:
        """A base.

        Args:
            size (int): how
                much.
        """

        def __init__(self, dims_in: Any, *, size: int = 3, kind: Literal["a", "b"] = "a") -> None: ...

    class Derived(Base):
        """A derived class.

        Args:
            kind: which.
        """

    model = section_of(Derived, "derived", Component, ["dims_in"])
    assert {key: (info.default, info.description) for key, info in keys_of(model).items()} == {
        "size": (3, "how much."),
        "kind": ("a", "which."),
    }
    assert model.__doc__ == "A derived class."


def test_modules_without_an_init_take_nothing() -> None:
    assert not keys_of(section_of(type("Own", (nn.Module,), {}), "own", Component))
    assert not keys_of(section_of(type("Own", (), {}), "own", Component))
    with pytest.raises(ValidationError, match="unknown key 'a'"):
        check(section_of(type("Own", (Loss,), {}), "own", Component), {"a": 1})


def test_open_ended_arguments_are_kept() -> None:
    model = section_of(lambda *, a=1, **rest: None, "open", Component)
    assert check(model, {"b": [1], "a": 2}).arguments == {"a": 2, "b": [1]}
    assert plain(check(model, {"b": [1]})) == {"a": 1, "b": [1]}


def test_partial_functions_and_what_has_no_signature() -> None:
    def component(first: int, *, size: int = 3) -> None: ...

    model = section_of(functools.partial(component, 1), "partial", Component)
    with pytest.raises(ValidationError, match="valid integer"):
        check(model, {"size": "3"})
    assert check(section_of(print.__class__, "builtin", Component), {}).arguments == {}


def test_names_of_pydantic_are_arguments_like_any_other() -> None:
    def component(*, copy: int, json: int, schema: int, model_fields: int, model_config: int, _private: int) -> None: ...

    model = section_of(component, "component", Component)
    given = dict.fromkeys(["copy", "json", "schema", "model_fields", "model_config", "_private"], 1)
    assert check(model, given).arguments == given
    with pytest.raises(ValidationError, match="unknown key 'argument_copy'"):
        check(model, {**given, "argument_copy": 1})


def test_an_argument_with_a_recipes_own_key_is_refused(scratch_registries: None) -> None:
    registry.losses.register("test_heavy")(lambda *, weight=1.0: None)

    class Base(Component):
        weight: float = 1.0

    with pytest.raises(RegistryError, match="loss 'test_heavy' cannot be used in a recipe: its argument 'weight'"):
        component_model("losses", "test_heavy", Base)
    with pytest.raises(RecipeError, match=r"loss\.0\.name: loss 'test_heavy' cannot be used in a recipe"):
        loads("name: a\ndata: {name: mnist}\nmodel: {name: firevnet}\nloss: [{name: test_heavy}]\n")


# every registered component


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_argument_has_a_type_and_a_description(kind: str, name: str) -> None:
    known = registry.registries[kind]
    parameters = inspect.signature(known.get(name)).parameters.values()
    model = component_model(kind, name)
    assert set(keys_of(model)) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - known.supplied
    assert model.__doc__
    for key, info in keys_of(model).items():
        assert info.annotation is not Any, key
        assert info.description, key


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_default_is_valid(kind: str, name: str) -> None:
    if (kind, name) == ("nodes", "nflows"):
        pytest.skip("it takes an object")
    model = component_model(kind, name)
    section = check(model, {key: "given" for key, info in keys_of(model).items() if info.is_required()})
    assert check(model, plain(section)) == section
    assert component_model(kind, name) is model
