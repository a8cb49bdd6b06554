"""Errors of the schema to problems that know where in the text they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from flowclf.component_schema.sections import UNKNOWN_KEY
from flowclf.errors import Problem, RecipeError
from flowclf.recipe.reader import Node, Place

MAX_PROBLEMS = 50


def recipe_error(error: ValidationError, root: Node, source: str, further: Sequence[Problem] = ()) -> RecipeError:
    """All errors of a recipe at their places, in the order of the text; those of ``--set`` and ``further`` ones come last.

    An unknown key is located at the key, a bad value at the value, and a missing key at the mapping that lacks it.
    """
    problems = []
    for item in error.errors(include_url=False):
        place = _place(root, item["loc"], item["type"] == UNKNOWN_KEY)
        location = ".".join(map(str, item["loc"]))
        if place.origin:
            problems.append(Problem(f"{place.origin}: {item['msg']}", location))
        else:
            problems.append(Problem(item["msg"], location, place.line, place.column))
    unique = sorted(dict.fromkeys([*problems, *further]), key=lambda p: (not p.line, p.line, p.column))
    if len(unique) > MAX_PROBLEMS:
        more = len(unique) - MAX_PROBLEMS
        unique = [*unique[:MAX_PROBLEMS], Problem(f"and {more} more")]
    return RecipeError(source, unique)


def _place(root: Node, location: Sequence[Any], at_key: bool) -> Place:
    node, key = root, root.place
    for part in location:
        children = node.value
        if isinstance(children, dict) and part in children:
            key, node = node.keys[part], children[part]
        elif isinstance(children, list) and isinstance(part, int) and part < len(children):
            node = children[part]
            key = node.place
        else:
            return key
    return key if at_key else node.place
