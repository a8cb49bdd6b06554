from __future__ import annotations

import contextlib
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flowclf.errors import FlowclfError, RecipeError, UsageError
from flowclf.recipe import reader
from flowclf.recipe.reader import Place, parse, read_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("9223372036854775807", 2**63 - 1),
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5E+3", -1500.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("2026-11-22", "2026-11-22"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("=", "="),
        ("'1'", "1"),
        ('"true"', "true"),
        ("[1, no]", [1, "no"]),
        ("{a: {b: []}}", {"a": {"b": []}}),
        ("|\n  two\n  lines", "two\nlines\n"),
        ("ü # comment", "ü"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = parse(f"x: {text}\n", "f").plain()["x"]
    assert read == value
    assert type(read) is type(value)


def test_nodes_know_their_place():
    root = parse("# first\na:\n  - b\n  - {c: 1}\n", "f")
    assert root.keys["a"] == Place(2, 1)
    items = root.value["a"].value
    assert items[0].place == Place(3, 5)
    assert items[1].keys["c"] == Place(4, 6)
    assert items[1].value["c"].place == Place(4, 9)


def test_all_broken_rules_come_at_once():
    with pytest.raises(RecipeError) as caught:
        parse("a: .nan\nb: &x 1\nb: !t 2\n3: *x\n", "f")
    assert [(p.line, p.column) for p in caught.value.problems] == [(1, 4), (2, 4), (3, 1), (3, 4), (4, 1), (4, 4)]


def test_a_value_of_an_option_names_the_option():
    with pytest.raises(RecipeError, match=r"^f: --set a=\[: expected YAML"):
        parse("[", "f", origin="--set a=[", mapping=False)


@pytest.mark.parametrize("parser", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 100_000, "nested more than 40"),
        ("[" * 100_000, "nested more than 40"),
        ("- " * 100_000, "nested more than 40"),
        ("a:\n\tb: 1\n", "expected spaces, found a tab"),
        ("a: @b\n", "text that begins with @ must be in quotes"),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("%TAG ! tag:x,2000:\n---\na: !b 1\n", "tags are not allowed"),
        ("a: %b\n", "must be in quotes"),
    ],
)
def test_both_parsers_of_yaml_refuse_alike(parser, text, words, monkeypatch):
    monkeypatch.setattr(reader, "_Parser", parser)
    with pytest.raises(RecipeError, match=words):
        parse(text, "f")


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text):
    with contextlib.suppress(RecipeError):
        assert isinstance(parse(text, "f").plain(), dict)


@given(st.text(alphabet="abc:-[]{},&*!|>'\"#%@\n \t0.", max_size=60))
def test_no_text_that_is_almost_yaml_raises_anything_else(text):
    with contextlib.suppress(RecipeError):
        assert isinstance(parse(text, "f").plain(), dict)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "r.yaml"
    path.write_bytes(content)
    problems = ()
    try:
        parse(read_text(path), "f")
    except RecipeError as error:
        problems = error.problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfname: a\n")
    assert parse(read_text(tmp_path / "r.yaml"), "f").plain() == {"name": "a"}


def test_the_place_of_a_bad_byte_counts_characters(tmp_path):
    (tmp_path / "r.yaml").write_bytes("a: 1\nü: ü".encode() + b"\xff")
    with pytest.raises(RecipeError) as caught:
        read_text(tmp_path / "r.yaml")
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (2, 5)


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", "a\0b"):
        with pytest.raises(UsageError):
            read_text(path)


def test_a_file_is_measured_before_it_is_read(tmp_path):
    path = tmp_path / "r.yaml"
    with open(path, "wb") as file:
        file.truncate(10**12)
    with pytest.raises(FlowclfError, match=r"expected at most 1 MB, found 1000000\.0 MB"):
        read_text(path)
