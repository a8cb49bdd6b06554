from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from flowclf import registry
from flowclf.arguments import Fraction, NonNegativeInt, PositiveInt, SubnetSpec
from flowclf.errors import RegistryError
from flowclf.registry import Registry
from flowclf.signatures import UNKNOWN, Component, Signature, arguments, checked_spec, component_model, to_pydantic
from flowclf.signatures.annotations import SUBNET, Exact, FromCode, describe, found, resolve

COMPONENTS = [(kind, name) for kind, known in registry.registries.items() for name in known.names()]
SUPPLIED = {"self", "dims_in", "dims_c", "classes", "channels_in", "channels_out"}


def problems(model: type[Component], value: Any) -> dict[str, tuple[str, str]]:
    """Dotted location -> (type, message) of everything that is wrong with a value."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return {".".join(map(str, e["loc"])): (e["type"], e["msg"]) for e in caught.value.errors()}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules that fail when imported, and registers what they define."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = Registry("node", "flowclf.nodes")
    known._entries = {}

    def write(package: str, **modules: str) -> Registry:
        for name, source in modules.items():
            path = tmp_path / package / f"{'__init__' if name == 'init' else name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text("raise RuntimeError('imported')\n" + inspect.cleandoc(source))
        return known

    def register(name: str, target: str) -> None:
        known._entries[name] = importlib.metadata.EntryPoint(name, target, "flowclf.nodes")

    write.register = register
    return write


# every registered component


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_what_is_read_from_the_source_is_what_python_sees(kind, name):
    known = registry.registries[kind]
    component = known.get(name)
    parameters = inspect.signature(component).parameters.values()
    expected = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in SUPPLIED}
    signature = arguments(known, name)
    assert {a.name for a in signature.arguments} == set(expected)
    for argument in signature.arguments:
        assert argument.required == (expected[argument.name] is inspect.Parameter.empty)
        assert argument.required or argument.default == expected[argument.name]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_argument_has_a_type_and_a_description(kind, name):
    signature = arguments(registry.registries[kind], name)
    assert signature.summary
    assert not signature.accepts_any
    for argument in signature.arguments:
        assert argument.type is not Any, argument.name
        assert argument.description, argument.name


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_default_is_valid(kind, name):
    required = {a.name: "given" for a in arguments(registry.registries[kind], name).arguments if a.required}
    if (kind, name) == ("nodes", "nflows"):
        pytest.skip("it takes an object")
    section = component_model(kind, name).model_validate(required)
    assert component_model(kind, name).model_validate(section.arguments) == section


def test_no_component_is_imported():
    program = (
        "import sys; from flowclf import registry; from flowclf.signatures import arguments;"
        "[arguments(r, n) for r in registry.registries.values() for n in r.names()];"
        "sys.exit(bool({'torch', 'numpy', 'FrEIA'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# annotations


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int", int),
        ("float", float),
        ("bool", bool),
        ("str", str),
        ("Any", Any),
        ("'int'", int),
        ("Path", str),
        ("PositiveInt", PositiveInt),
        ("flowclf.arguments.NonNegativeInt", NonNegativeInt),
        ("list[int]", list[int]),
        ("Sequence[float]", list[float]),
        ("collections.abc.Sequence[list[int]]", list[list[int]]),
        ("tuple[int, ...]", list[int]),
        ("list", list[Any]),
        ("Mapping[str, int]", dict[str, int]),
        ("dict", dict[str, Any]),
        ("Literal['a', 'b']", Annotated[Literal["a", "b"], Exact()]),
        ("typing.Literal[1, None]", Annotated[Literal[1, None], Exact()]),
        ("Annotated[int, Ge(2), Le(4)]", Annotated[int, Ge(2), Le(4)]),
        ("Annotated[int, Ge(ge=2)]", Annotated[int, Ge(2)]),
        ("Annotated[int, 'text']", int),
        ("SubnetSpec", SUBNET),
        ("torch.nn.Module", FromCode),
        ("Callable[[int], int]", FromCode),
        ("Callable[[int], int] | None", FromCode),
        ("Unknown", Any),
        ("int | Unknown", Any),
        ("f(x)", Any),
        ("Literal[f(x)]", Any),
        ("Literal[()]", Any),
        ("Literal[[1]]", Any),
        ("tuple[()]", Any),
        ("list[int, int]", Any),
        ("not python", Any),
        ("[" * 40 + "]" * 40, Any),
    ],
)
def test_an_annotation_resolves(annotation, expected):
    assert resolve(annotation) == expected


@pytest.mark.parametrize(
    ("annotation", "members"),
    [
        ("int | None", {int, type(None)}),
        ("Optional[int]", {int, type(None)}),
        ("Union[int, str, None]", {int, str, type(None)}),
        ("int | Callable[[int], int]", {int}),
        ("SubnetSpec | int", {Any}),
        ("SubnetSpec | Callable[[int, int], nn.Module] | None", {SUBNET, type(None)}),
        ("str | Mapping[str, Mapping[str, Any]] | None", {SUBNET, type(None)}),
    ],
)
def test_a_union_resolves(annotation, members):
    resolved = resolve(annotation)
    assert (set(get_args(resolved)) if len(members) > 1 else {resolved}) == members


def test_a_chain_of_aliases_that_never_ends_is_any():
    def scope(name: str) -> Any:
        return name, scope

    assert resolve("Loop", scope) is Any


ANNOTATIONS = st.recursive(
    st.sampled_from(["int", "None", "Any", "str", "'a'", "Tensor", "SubnetSpec", "PositiveInt", "a.b", "f(x)", "...", "1"]),
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["list", "tuple", "dict", "Literal", "Optional", "Annotated", "Union", "x"]), st.lists(inner)
        ).map(lambda pair: f"{pair[0]}[{', '.join(pair[1]) or '()'}]"),
        st.lists(inner, min_size=1).map(" | ".join),
    ),
)


@given(ANNOTATIONS)
def test_any_annotation_resolves_to_what_can_be_described_and_checked(annotation):
    resolved = resolve(annotation)
    assert describe(resolved)
    TypeAdapter(resolved)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (Annotated[float, Ge(0), Le(1)], "a number from 0 to 1"),
        (Annotated[float, Ge(0), Lt(1)], "a number of at least 0 and less than 1"),
        (Annotated[float, Gt(0), Le(1)], "a number greater than 0, up to 1"),
        (Annotated[float, Gt(0), Lt(1)], "a number between 0 and 1, both excluded"),
        (Annotated[float, Le(1)], "a number of at most 1"),
        (Annotated[float, Lt(1)], "a number less than 1"),
        (Annotated[float, Gt(0)], "a number greater than 0"),
        (resolve("tuple[int, int]"), "a list of 2 items, each an integer"),
        (resolve("PositiveInt | list[bool] | None"), "an integer of at least 1, or a list, each true or false, or null"),
        (dict[str, Any], "a mapping"),
        (list[Any], "a list"),
        (Literal["a", None], "'a' or null"),
        (Any, "any value"),
        (FromCode, "an object that only code can give"),
        (SUBNET, "the name of one of the subnets, or a mapping of its name to its arguments"),
    ],
)
def test_a_type_is_described(annotation, words):
    assert describe(annotation) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (False, "false"),
        (1.5, "1.5"),
        ("x" * 61, f"'{'x' * 60}...'"),
        ([], "an empty list"),
        ({}, "an empty mapping"),
        ({"a": 1}, "a mapping"),
    ],
)
def test_a_value_is_shown(value, words):
    assert found(value) == words


# reading


def test_a_class_is_read_with_its_aliases_and_its_bases(package):
    known = package(
        "flowclf_test_one",
        init="from .node import Node as Exported",
        node='''
            import elsewhere
            from .kinds import Kind, DEFAULT, Base

            class Node(Base, elsewhere.Mixin):
                """A node.

                Args:
                    kind: what it
                        does.
                    size (int): how much.
                """
        ''',
        kinds='''
            from typing import Literal
            try:
                from fast import Kind
            except ImportError:
                Kind = Literal["a", "b"]
            if True:
                DEFAULT: int = 3

            class Root:
                """Root.

                Args:
                    deep: from the root.
                """

            class Base(Root):
                def __init__(self, dims_in, dims_c=None, size: int = DEFAULT, *, kind: Kind = "a",
                             scale: float = compute(), deep: bool = -1, classes: int, function: Callable = print) -> None:
                    """Not the one.

                    Args:
                        kind: another description.
                    """
        ''',
    )
    package.register("node", "flowclf_test_one:Exported")
    signature = arguments(known, "node")
    assert (signature.kind, signature.name, signature.summary, signature.accepts_any) == ("node", "node", "A node.", False)
    assert [(a.name, a.type, a.required, a.default, a.description) for a in signature.arguments] == [
        ("size", int, False, 3, "how much."),
        ("kind", resolve("Literal['a', 'b']"), False, "a", "what it does."),
        ("scale", float, False, UNKNOWN, ""),
        ("deep", bool, False, -1, "from the root."),
    ]


def test_a_function_is_read(package):
    known = package("flowclf_test_two", init="def f(a, b: int = 1, *c, d: 'str', **e): ...")
    package.register("f", "flowclf_test_two:f")
    signature = arguments(known, "f")
    assert [(a.name, a.type, a.required) for a in signature.arguments] == [("a", Any, True), ("b", int, False), ("d", str, True)]
    assert signature.accepts_any


def test_a_class_without_an_init_takes_nothing(package):
    known = package("flowclf_test_three", init="from torch import nn\nclass A(nn.Module): ...\nclass B(A, B): ...")
    package.register("b", "flowclf_test_three:B")
    assert arguments(known, "b") == Signature("node", "b", ())


def test_source_that_is_not_python_is_told(package):
    known = package("flowclf_test_four", init="def f(:")
    package.register("f", "flowclf_test_four:f")
    with pytest.raises(RegistryError, match="node 'f' cannot be loaded from flowclf_test_four"):
        arguments(known, "f")


def test_a_package_that_is_not_there_is_told(package):
    known = package("flowclf_test_five", init="")
    package.register("f", "flowclf_test_absent.module:f")
    with pytest.raises(RegistryError, match="cannot be loaded"):
        arguments(known, "f")


def test_a_component_without_source_is_imported_and_read():
    known = Registry("node", "flowclf.nodes")
    known._entries = {"log": importlib.metadata.EntryPoint("log", "math:log", "flowclf.nodes")}
    assert arguments(known, "log").accepts_any
    known._entries["counter"] = importlib.metadata.EntryPoint("counter", "itertools:count", "flowclf.nodes")
    assert [(a.name, a.default) for a in arguments(known, "counter").arguments] == [("start", 0), ("step", 1)]


def test_an_unknown_name_is_told():
    with pytest.raises(RegistryError, match="unknown subnet 'cnv'; did you mean 'conv'"):
        arguments(registry.subnets, "cnv")


def test_components_of_the_running_process_are_read():
    known = Registry("node", "flowclf.nodes")
    known._entries = {}

    def annotated(*, size: PositiveInt, share: Fraction = 0.5, subnet: SubnetSpec | None = None, other=UNKNOWN): ...

    # As in a notebook, without `from __future__ import annotations`.
    annotated.__annotations__ = {"size": PositiveInt, "share": Fraction, "subnet": SubnetSpec | None}

    class Written:
        """Written.

        Args:
            sizes: several.
        """

        def __init__(
            self, dims_in: Any, *, sizes: Sequence[int] = (1, 2), table: Mapping[str, int] | None = None, **rest: Any
        ) -> None: ...

    known.register("annotated")(annotated)
    known.register("written")(Written)
    assert [(a.name, a.type, a.required) for a in arguments(known, "annotated").arguments] == [
        ("size", PositiveInt, True),
        ("share", Fraction, False),
        ("subnet", resolve("SubnetSpec | None"), False),
        ("other", Any, False),
    ]
    signature = arguments(known, "written")
    assert [(a.name, a.type, a.default, a.description) for a in signature.arguments] == [
        ("sizes", list[int], (1, 2), "several."),
        ("table", resolve("dict[str, int] | None"), None, ""),
    ]
    assert signature.accepts_any


# models


def model_of(**annotations: str) -> type[Component]:
    def function(): ...

    known = Registry("loss", "flowclf.losses")
    known._entries = {}
    names = {name.rstrip("_"): name for name in annotations}
    function.__signature__ = inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotations[key],
                default=inspect.Parameter.empty if key == name else None,
            )
            for name, key in names.items()
        ]
    )
    known.register("function")(function)
    return to_pydantic(arguments(known, "function"))


@pytest.mark.parametrize(
    ("annotation", "value", "canonical"),
    [
        ("int", 3, 3),
        ("float", 3, 3.0),
        ("tuple[int, int]", [1, 2], [1, 2]),
        ("int | list[int]", [1, 2], [1, 2]),
        ("dict[str, list[int]]", {"a": [1]}, {"a": [1]}),
        ("Literal['a', 1]", 1, 1),
        ("SubnetSpec", "dense", {"dense": {"width": 128, "hidden_layers": 2}}),
        ("SubnetSpec | None", {"dense": {"width": 3}}, {"dense": {"width": 3, "hidden_layers": 2}}),
        ("Unknown", {"a": [1, None]}, {"a": [1, None]}),
    ],
)
def test_a_value_is_accepted(annotation, value, canonical):
    arguments = model_of(x=annotation).model_validate({"x": value}).arguments
    assert arguments == {"x": canonical}
    assert type(arguments["x"]) is type(canonical)


@pytest.mark.parametrize(
    ("annotation", "value", "location", "message"),
    [
        ("int", True, "x", "expected an integer, found true"),
        ("int", 1.0, "x", "expected an integer, found 1.0"),
        ("int", "1", "x", "expected an integer, found '1'"),
        ("float", True, "x", "expected a number, found true"),
        ("float", float("nan"), "x", "expected a number, found nan"),
        ("bool", 1, "x", "expected true or false, found 1"),
        ("str", None, "x", "expected text, found null"),
        ("Literal[1, 2]", True, "x", "expected 1 or 2, found true"),
        ("Literal[1, 2]", 1.0, "x", "expected 1 or 2, found 1.0"),
        ("list[Literal[1, 2]] | None", [1, True], "x.1", "expected 1 or 2, found true"),
        ("Literal['a'] | int", "b", "x", "expected 'a', or an integer, found 'b'"),
        ("Literal['a'] | int", True, "x", "expected 'a', or an integer, found true"),
        ("list[int]", 3, "x", "expected a list, each an integer, found 3"),
        ("list[list[int]]", [[1], [2, "a"]], "x.1.1", "expected an integer, found 'a'"),
        ("list[int] | None", [1, "a"], "x.1", "expected an integer, found 'a'"),
        ("int | list[PositiveInt]", [1, 0], "x.1", "expected an integer of at least 1, found 0"),
        ("int | list[int]", "a", "x", "expected an integer, or a list, each an integer, found 'a'"),
        ("tuple[int, int]", [1], "x", "expected a list of 2 items, each an integer, found a list"),
        ("dict[str, int]", [1], "x", "expected a mapping, found a list"),
        ("nn.Module", 1, "x", "expected an object that only code can give, found 1"),
        ("SubnetSpec", 3, "x", "expected the name of a subnet, or a mapping of one name to its arguments; found 3"),
        ("SubnetSpec | None", {"conv": {"width": 0}}, "x.conv.width", "expected an integer of at least 1, found 0"),
        ("SubnetSpec | None", {"conv": 3}, "x.conv", "expected a mapping of arguments of subnet 'conv', found 3"),
    ],
)
def test_a_value_is_refused(annotation, value, location, message):
    assert problems(model_of(x=annotation), {"x": value}) == {location: ("bad_value", message)}


def test_missing_and_unknown_keys_are_told():
    assert problems(model_of(width="int", depth_="int | None"), {"widht": 3}) == {
        "width": ("missing_key", "missing; expected an integer"),
        "widht": ("unknown_key", "unknown key 'widht'; did you mean 'width'?"),
    }


def test_a_default_that_its_own_annotation_refuses_must_be_given():
    model = model_of(depth_="int")
    message = "missing; its default null cannot be used: expected an integer"
    assert problems(model, {}) == {"depth": ("missing_key", message)}
    assert model.model_validate({"depth": 3}).arguments == {"depth": 3}


def test_a_value_that_is_no_mapping_is_told():
    assert problems(model_of(), [1]) == {"": ("bad_value", "expected a mapping, found a list")}


def test_names_of_pydantic_are_arguments_like_any_other():
    names = ["copy", "json", "schema", "model_fields", "model_config", "self_", "_private"]
    model = model_of(**dict.fromkeys(names, "int"))
    given = {name.rstrip("_"): 1 for name in names}
    assert model.model_validate(given).arguments == given
    assert problems(model, {**given, "argument_copy": 1})["argument_copy"][0] == "unknown_key"


def test_an_argument_may_be_written_nested():
    model = model_of(a_b="int", a_c_d="int", b="int", b_c_="int | None")
    flat = {"a_b": 1, "a_c_d": 2, "b": 3}
    assert model.model_validate({"a": {"b": 1, "c_d": 2}, "b": 3}) == model.model_validate(flat)
    assert model.model_validate({"a": {"b": 1}, "a_c": {"d": 2}, "b": 3}) == model.model_validate(flat)
    assert problems(model, {**flat, "a": {"b": 1}}) == {
        "a.b": ("unknown_key", "the same argument is given as 'a_b' too; leave one out")
    }
    assert problems(model, {"a": {"b": 1, "c_e": 2}, "b": 3}) == {
        "a.c_e": ("unknown_key", "unknown key 'c_e'; did you mean 'c_d'?"),
        "a_c_d": ("missing_key", "missing; expected an integer"),
    }
    assert problems(model, {**flat, "a": 3}) == {"a": ("bad_value", "expected a mapping of b, c_d; found 3")}
    # b is an argument itself, so its mapping is its value.
    assert problems(model, {**flat, "b": {"c": 1}}) == {"b": ("bad_value", "expected an integer, found a mapping")}
    assert problems(model, {"a": {"b": "x"}, "a_c_d": 1, "b": 1}) == {"a.b": ("bad_value", "expected an integer, found 'x'")}


NAMES = ["one_a", "one_b", "one_c_d", "two_a", "three"]


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(), min_size=1), st.data())
def test_nested_and_flat_forms_are_equal(flat, data):
    model = model_of(**{name + "_": "int | None" for name in NAMES})
    written: dict[str, Any] = {}
    for name, value in flat.items():
        cuts = [i for i, letter in enumerate(name) if letter == "_"]
        cut = data.draw(st.sampled_from([None, *cuts]))
        if cut is None:
            written[name] = value
        else:
            written.setdefault(name[:cut], {})[name[cut + 1 :]] = value
    assert model.model_validate(written) == model.model_validate(flat)


def test_an_argument_with_a_recipes_own_key_is_refused():
    class Base(Component):
        weight: float = 1.0

    known = Registry("loss", "flowclf.losses")
    known._entries = {}
    known.register("heavy")(lambda *, weight=1.0: None)
    with pytest.raises(RegistryError, match="loss 'heavy' cannot be used in a recipe: its argument 'weight'"):
        to_pydantic(arguments(known, "heavy"), Base)


def test_open_ended_arguments_are_kept():
    known = Registry("loss", "flowclf.losses")
    known._entries = {}
    known.register("open")(lambda *, a=1, **rest: None)
    model = to_pydantic(arguments(known, "open"))
    assert model.model_validate({"b": [1], "a": 2}).arguments == {"a": 2, "b": [1]}


def test_an_unknown_default_is_left_to_the_component():
    known = Registry("loss", "flowclf.losses")
    known._entries = {}
    known.register("opaque")(lambda *, a=UNKNOWN, b=(1, (2,)): None)
    assert to_pydantic(arguments(known, "opaque")).model_validate({}).arguments == {"b": [1, [2]]}


def test_a_spec_without_arguments_is_its_name():
    assert checked_spec("nodes", "dct2d") == "dct2d"
    assert checked_spec("nodes", {"dct2d": {}}) == "dct2d"
