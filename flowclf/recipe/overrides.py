"""``--set KEY=VALUE``: changes to a recipe's tree before it is checked. Values obey the same rules as the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flowclf.errors import Problem, RecipeError
from flowclf.recipe.reader import Node, Place, parse

_MAXIMUM_KEYS = 30


def apply_overrides(root: Node, overrides: Sequence[str], source: str) -> list[Problem]:
    """Set values in a recipe's tree, in order, so that a later one wins; returns the problems of those that cannot be set.

    An override is ``key=value``: a dotted key, where a number is an index into a list, and a value in YAML.

    Example:
        >>> root = parse("model: {name: firevnet, width: [32, 64]}", "example")
        >>> apply_overrides(root, ["model.width.1=96", "train.epochs=3"], "example")
        []
        >>> root.plain()
        {'model': {'name': 'firevnet', 'width': [32, 96]}, 'train': {'epochs': 3}}
    """
    problems: list[Problem] = []
    for override in overrides:
        origin = f"--set {override[:100]}"
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path) or len(path) > _MAXIMUM_KEYS:
            problems.append(Problem(f"{origin}: expected KEY=VALUE with a dotted key, such as train.epochs=3"))
            continue
        try:
            _set(root, path, _value(text, source, origin), origin)
        except RecipeError as error:
            problems += error.problems
        except LookupError as error:
            problems.append(Problem(f"{origin}: {error.args[0]}", ".".join(path)))
    return problems


def _value(text: str, source: str, origin: str) -> Node:
    """The value; a command line has no comments, so a # in plain text is a part of it."""
    if re.search(r"(?:^|\s)#", text) and text.lstrip()[0] not in "\"'[{":
        return Node(Place(origin=origin), text.strip())
    return parse(text, source, origin, mapping=False)


def _set(node: Node, path: list[str], value: Node, origin: str) -> None:
    place = Place(origin=origin)
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        where = ".".join(path[:depth]) or "the recipe"
        if node.value is None and depth:
            node.value = {}
        key: Any = part
        if isinstance(node.value, list):
            length = len(node.value)
            if not part.isdecimal() or int(part[:9]) >= length:
                raise LookupError(f"{where} is a list of {length}: expected an index from 0 to {length - 1}, found '{part}'")
            key = int(part)
        elif not isinstance(node.value, dict):
            raise LookupError(f"{where} is a single value and has no '{part}'")
        elif last or part not in node.value:
            node.value[part], node.keys[part] = Node(place, {}), place
        if last:
            node.value[key] = value
        else:
            node = node.value[key]
