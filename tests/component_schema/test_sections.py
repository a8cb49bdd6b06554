"""Sections: plain data checked strictly, errors at their places, and back to plain data."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from flowclf.component_schema.sections import BAD_VALUE, MISSING_KEY, UNKNOWN_KEY, Section, check, found, from_code, plain
from flowclf.errors import UsageError


class Inner(Section):
    size: Annotated[int, Ge(1)] = 1
    ratio: float = Field(0.5, description="A ratio.")


class Outer(Section):
    name: str = Field(description="What it is called.")
    inner: Inner = Inner()
    several: list[Inner] = Field(default_factory=list)
    either: int | list[int] | None = None


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: set[int]


def problems(data: Any) -> dict[str, tuple[str, str]]:
    """Dotted place -> (type, message) of everything that is wrong."""
    with pytest.raises(ValidationError) as caught:
        check(Outer, data)
    return {".".join(map(str, e["loc"])): (e["type"], e["msg"]) for e in caught.value.errors()}


def test_all_errors_come_at_once_with_their_places() -> None:
    given = {"nmae": 1, "inner": {"size": 0, "ratoi": 1}, "several": [{}, {"size": True}, 3], "either": [1, "a"]}
    assert problems(given) == {
        "name": (MISSING_KEY, "missing (What it is called)"),
        "inner.size": (BAD_VALUE, "Input should be greater than or equal to 1, found 0"),
        "inner.ratoi": (UNKNOWN_KEY, "unknown key 'ratoi'; did you mean 'ratio'?"),
        "several.1.size": (BAD_VALUE, "Input should be a valid integer, found true"),
        "several.2": (BAD_VALUE, "expected a mapping, found 3"),
        "either.1": (BAD_VALUE, "Input should be a valid integer, found 'a'"),
        "nmae": (UNKNOWN_KEY, "unknown key 'nmae'; did you mean 'name'?"),
    }


@pytest.mark.parametrize(("data", "words"), [([1], "a list"), (None, "null"), ({}, None)])
def test_what_is_no_mapping_is_refused(data: Any, words: str | None) -> None:
    expected = (
        {"": (BAD_VALUE, f"expected a mapping, found {words}")} if words else {"name": (MISSING_KEY, "missing (What it is called)")}
    )
    assert problems(data) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e400])
def test_numbers_are_finite(value: float) -> None:
    assert "finite number" in problems({"name": "a", "inner": {"ratio": value}})["inner.ratio"][1]


def test_a_section_that_is_wrong_throughout_is_refused_shortly() -> None:
    told = problems({"name": "a", "either": ["x"] * 5000} | {f"key{i}": 1 for i in range(5000)})
    assert 1 < len(told) <= 50


@given(
    st.builds(
        Outer, name=st.text(), inner=st.builds(Inner, size=st.integers(1), ratio=st.floats(allow_nan=False, allow_infinity=False))
    )
)
def test_plain_then_check_is_identity(section: Outer) -> None:
    # A lone surrogate is in no YAML.
    if any("\ud800" <= letter <= "\udfff" for letter in section.name):
        return
    assert check(Outer, plain(section)) == section


def test_a_section_from_code_is_itself_or_a_mapping() -> None:
    section = Inner(size=3)
    assert from_code(Inner, section, "inner") is section
    assert from_code(Inner, {"size": 3}, "inner") == section
    assert from_code(Outer, {"name": "a", "inner": section, "either": (1, 2)}, "outer").either == [1, 2]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"size": 0, "a": 1}, r"inner\.size: Input should be greater than or equal to 1, found 0; inner\.a: unknown key 'a'"),
        (3, "inner: expected a mapping, found 3"),
        ({"size": object()}, "inner: expected plain data, found an object of type object"),
        ({3: 4}, "inner: expected keys that are text"),
    ],
)
def test_a_wrong_section_from_code_is_refused_in_the_words_of_a_recipe(value: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_code(Inner, value, "inner")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        (Point(1, {3, 2}), {"x": 1, "y": [2, 3]}),
        ({"a": (1, frozenset({"c", "b"}))}, {"a": [1, ["b", "c"]]}),
        (Path("a/b"), "a/b"),
        (Inner(size=2), {"size": 2, "ratio": 0.5}),
        ([None, True, 1.5], [None, True, 1.5]),
    ],
)
def test_plain_data_of_values(value: Any, expected: Any) -> None:
    assert plain(value) == expected


@pytest.mark.parametrize("value", [object(), len, {"a": [print]}, Section])
def test_what_is_not_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="expected plain data"):
        plain(value)


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
def test_a_value_is_shown(value: Any, words: str) -> None:
    assert found(value) == words
