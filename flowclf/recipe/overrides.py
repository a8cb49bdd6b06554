"""``--set KEY=VALUE``: changes to a recipe's tree before it is checked. Values obey the same rules as the file."""

from __future__ import annotations

from collections.abc import Sequence

from flowclf.errors import Problem, RecipeError
from flowclf.recipe.reader import Node, Place, parse

_MAXIMUM_KEYS = 30


def apply_overrides(root: Node, overrides: Sequence[str], source: str) -> list[Problem]:
    """Set values in a tree, in order, so that a later one wins; what cannot be set is told and left.

    Args:
        root: of the recipe, changed in place.
        overrides: each ``key=value``: a dotted key, where a number is an index into a list, and a value in YAML.
        source: name of the recipe, for errors.

    Returns:
        What is wrong with overrides, each problem naming its ``--set``: no ``=``, a value that is not YAML, or a key that
        cannot be followed.

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
            _set(root, path, parse(text, source, origin, mapping=False), origin)
        except RecipeError as error:
            problems += error.problems
        except LookupError as error:
            problems.append(Problem(f"{origin}: {error.args[0]}", ".".join(path)))
    return problems


def _set(node: Node, path: list[str], value: Node, origin: str) -> None:
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        where = ".".join(path[:depth]) or "the recipe"
        if isinstance(node.value, list):
            index = _index(part, len(node.value), where)
            if last:
                node.value[index] = value
            else:
                node = node.value[index]
        elif isinstance(node.value, dict) or (node.value is None and depth):
            if node.value is None:
                node.value = {}
            if last:
                node.value[part], node.keys[part] = value, Place(origin=origin)
            else:
                if part not in node.value:
                    node.value[part], node.keys[part] = Node(Place(origin=origin), {}), Place(origin=origin)
                node = node.value[part]
        else:
            raise LookupError(f"{where} is a single value and has no '{part}'")


def _index(part: str, length: int, where: str) -> int:
    if not part.isdecimal() or int(part[:9]) >= length:
        raise LookupError(f"{where} is a list of {length}: expected an index from 0 to {length - 1}, found '{part}'")
    return int(part)
