"""Recipes from files and text, and back to text with every default filled in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flowclf.component_schema.sections import UNKNOWN_KEY, check, plain
from flowclf.errors import Problem, RecipeError
from flowclf.recipe.files import find
from flowclf.recipe.overrides import apply_overrides
from flowclf.recipe.reader import Node, Place, is_text, parse, read_text
from flowclf.recipe.schema import Recipe

_MAX_PROBLEMS = 50


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, overrides applied; its text without them, its file (None for a text), and the overrides."""

    recipe: Recipe
    source_text: str
    path: Path | None
    overrides: tuple[str, ...] = ()


def load(source: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read and check a recipe; the components that it names are imported.

    Args:
        source: a path, or the name of a bundled recipe such as ``mnist``.
        overrides: each ``KEY=VALUE``, as ``train.epochs=3``; a later one wins.

    Raises:
        UsageError: if there is no such file or bundled recipe.
        RecipeError: if the recipe is invalid; has all problems with their places.
    """
    path = find(source)
    return loads(read_text(path), overrides, source=str(path), path=path)


def loads(text: str, overrides: Sequence[str] = (), *, source: str = "recipe", path: Path | None = None) -> LoadedRecipe:
    """Check a recipe's text, as :func:`load` does; ``source`` is its name in errors."""
    root = parse(text, source)
    refused = apply_overrides(root, overrides, source)
    try:
        recipe = check(Recipe, root.plain())
    except ValidationError as error:
        raise _recipe_error(error, root, source, refused) from None
    if refused:
        raise RecipeError(source, refused)
    return LoadedRecipe(recipe, text, path, tuple(overrides))


def _recipe_error(error: ValidationError, root: Node, source: str, refused: Sequence[Problem]) -> RecipeError:
    """All errors of a recipe at their places, in the order of the text; those of ``--set`` come last."""
    problems = [
        _place(root, item["loc"], item["type"] == UNKNOWN_KEY).problem(item["msg"], ".".join(map(str, item["loc"])))
        for item in error.errors(include_url=False)
    ]
    unique = sorted(dict.fromkeys([*problems, *refused]), key=lambda p: (not p.line, p.line, p.column))
    more = [Problem(f"and {len(unique) - _MAX_PROBLEMS} more")] if len(unique) > _MAX_PROBLEMS else []
    return RecipeError(source, [*unique[:_MAX_PROBLEMS], *more])


def _place(root: Node, location: Sequence[Any], at_key: bool) -> Place:
    """An unknown key is located at the key, a bad value at the value, and a missing key at the mapping that lacks it."""
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


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data with every default filled in; loading it again gives an equal recipe."""
    return plain(recipe)  # type: ignore[no-any-return]


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.dump(resolved(recipe), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes what :mod:`flowclf.recipe.reader` reads: text that it would take for something else is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        """Aliases are not allowed in a recipe."""
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        """Text, in quotes unless it is a plain word."""
        plain = re.fullmatch(r"[A-Za-z][\w./-]*", data, re.ASCII) and is_text(data)
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
