"""Recipes from files and by name, and back to text with every default filled in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flowclf.component_schema.sections import check, plain
from flowclf.errors import RecipeError, UnreachableError, UsageError
from flowclf.files import resource
from flowclf.recipe import reader
from flowclf.recipe.overrides import apply_overrides
from flowclf.recipe.problems import recipe_error
from flowclf.recipe.schema import Recipe
from flowclf.registry import nearest


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe that was read and found valid.

    Attributes:
        recipe: the recipe, overrides applied.
        source_text: the text as given, without the overrides.
        path: the file; None for a recipe from text.
        overrides: ``KEY=VALUE``, in order.
    """

    recipe: Recipe
    source_text: str
    path: Path | None
    overrides: tuple[str, ...] = ()


def bundled() -> list[str]:
    """Names of the recipes that travel with the package, sorted; a nested one is ``folder/name``."""
    try:
        folder = resource("recipes")
    except UnreachableError:
        return []
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find(source: str | Path) -> Path:
    """The file of a recipe.

    Args:
        source: a path, or the name of a bundled recipe; a file of that path comes first.

    Raises:
        UsageError: there is neither; the message has the nearest bundled name.
    """
    text = str(source)
    shown = (text if text.isprintable() else repr(text))[:200]
    try:
        if Path(source).is_file():
            return Path(source)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {shown}: {error}") from error
    names = bundled()
    if text in names:
        return resource("recipes", *f"{text}.yaml".split("/"))
    if Path(source).exists():
        raise UsageError(f"expected a recipe's file, found {shown}, which is not a regular file")
    stem = re.sub(r"^(?:.*/)?recipes/|\.ya?ml$", "", text)
    hint = f"; did you mean the bundled recipe '{stem}'?" if stem in names else nearest(stem[:100], names)
    raise UsageError(f"there is no file {shown}, and no bundled recipe of that name{hint}")


def load(source: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read and check a recipe; the components that it names are imported.

    Args:
        source: a path, or the name of a bundled recipe such as ``mnist``.
        overrides: each ``KEY=VALUE``, as ``train.epochs=3``; a later one wins.

    Raises:
        UsageError: there is no such file or bundled recipe.
        RecipeError: the recipe is invalid; has all problems with their places.
    """
    path = find(source)
    return loads(reader.read_text(path), overrides, source=str(path), path=path)


def loads(text: str, overrides: Sequence[str] = (), *, source: str = "recipe", path: Path | None = None) -> LoadedRecipe:
    """Check a recipe's text, as :func:`load` does.

    Args:
        text: the YAML document.
        overrides: each ``KEY=VALUE``.
        source: what errors call it.
        path: the file that it comes from, if any.

    Raises:
        RecipeError: the recipe is invalid; has all problems with their places.
    """
    root = reader.parse(text, source)
    refused = apply_overrides(root, overrides, source)
    try:
        recipe = check(Recipe, root.plain())
    except ValidationError as error:
        raise recipe_error(error, root, source, refused) from None
    if refused:
        raise RecipeError(source, refused)
    return LoadedRecipe(recipe, text, path, tuple(overrides))


def description(source: str | Path) -> str:
    """The sentence that says what a recipe is for, read without checking the rest.

    Args:
        source: a path, or the name of a bundled recipe.

    Raises:
        UsageError: if there is no such file or bundled recipe.
        RecipeError: if the file is not YAML as recipes have it.
    """
    path = find(source)
    node = reader.parse(reader.read_text(path), str(path)).value.get("description")
    return node.value if node is not None and isinstance(node.value, str) else ""


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
        plain = re.fullmatch(r"[A-Za-z][\w./-]*", data, re.ASCII) and reader.is_text(data)
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
