"""Paths in a recipe: relative to the folder where the command was started, and absolute in the record of a run.

The paths of a data set are its arguments ``root`` and ``path``, and those annotated as ``pathlib.Path``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from flowclf.component_schema.signature import Component
from flowclf.errors import UsageError
from flowclf.recipe.schema import Recipe

C = TypeVar("C", bound=Component)

_NAMES = ("root", "path")


def data_paths(section: Component) -> dict[str, Path | None]:
    """The arguments of a data set that are paths, with their values."""
    fields = {info.alias: info.annotation for info in type(section).model_fields.values() if info.alias}
    names = [name for name, annotation in fields.items() if name in _NAMES or _holds_path(annotation)]
    values = section.arguments
    return {name: None if values.get(name) is None else Path(values[name]) for name in names if _is_path(values.get(name))}


def _is_path(value: Any) -> bool:
    return value is None or isinstance(value, str | os.PathLike)


def _holds_path(annotation: Any) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, Path)
    return any(map(_holds_path, get_args(annotation)))


def located_data(section: C, *folders: Path) -> C:
    """The same data set with absolute paths; ``folders`` are those of :func:`located`."""
    return _with_paths(section, lambda path: _absolute(path, folders))


def data_at(section: C, name: str, place: Path) -> C:
    """The same data set, ``name`` in errors, read from another place.

    Raises:
        UsageError: if there is nothing at the place, or the data set is not read from a path.
    """
    if not place.exists():
        raise UsageError(f"--data-root: there is no file or directory {place}")
    names = list(data_paths(section))
    if not names:
        raise UsageError(f"--data-root: the data set '{name}' is not read from a path")
    return _changed(section, {names[0]: place.absolute()})


def located(recipe: Recipe, *folders: Path) -> Recipe:
    """The same recipe with absolute paths.

    Args:
        recipe: its relative paths are those of the data set and, unless it is a name, that of the oracle.
        folders: where they may begin: the first folder in which a path exists counts, otherwise the first; by default the current
            folder.
    """
    return _everywhere(recipe, lambda path: _absolute(path, folders))


def portable(recipe: Recipe, folder: Path, given: Recipe) -> Recipe:
    """The recipe of a run with paths relative to a folder, which can move together with the data.

    Absolute paths of the recipe that was given stay.
    """
    kept = _texts(given)

    def relative(path: Path) -> Path:
        if path in kept or not path.is_absolute():
            return path
        # Where a folder is a link, ".." leads from its target.
        place = Path(os.path.realpath(path.parent), path.name)
        return Path(os.path.relpath(place, os.path.realpath(folder)))

    return _everywhere(recipe, relative)


def as_given(recipe: Recipe, given: Recipe) -> Recipe:
    """The recipe of a run with the paths of the recipe that was given, where they may be the same; of others the name alone."""
    texts = _texts(given)

    def may_be(text: Path, path: Path) -> bool:
        tail = tuple(part for part in text.expanduser().parts if part != "..")
        return not tail or path.parts[-len(tail) :] == tail

    return _everywhere(recipe, lambda path: next((text for text in texts if may_be(text, path)), Path(path.name)))


def _texts(recipe: Recipe) -> list[Path]:
    """The paths of a recipe as written."""
    oracle = recipe.evaluate.oracle
    return [path for path in (*data_paths(recipe.data).values(), oracle and Path(oracle)) if path]


def with_data_at(recipe: Recipe, place: Path) -> Recipe:
    """The same recipe, its data set read from another place; raises as :func:`data_at`."""
    return recipe.model_copy(update={"data": data_at(recipe.data, recipe.data.name, place)})


def _absolute(path: Path, folders: Sequence[Path]) -> Path:
    path = path.expanduser()
    if path.is_absolute():
        return path
    places = [folder / path for folder in folders or (Path.cwd(),)]
    return next((place for place in places if place.exists()), places[0]).absolute()


def _everywhere(recipe: Recipe, changed: Callable[[Path], Path]) -> Recipe:
    oracle = recipe.evaluate.oracle
    update: dict[str, Any] = {"data": _with_paths(recipe.data, changed)}
    # An existing path takes precedence over a name in the zoo.
    if oracle is not None and (Path(oracle).is_absolute() or changed(Path(oracle)).exists()):
        update["evaluate"] = recipe.evaluate.model_copy(update={"oracle": str(changed(Path(oracle)))})
    return recipe.model_copy(update=update)


def _with_paths(section: C, changed: Callable[[Path], Path]) -> C:
    return _changed(section, {name: changed(path) for name, path in data_paths(section).items() if path is not None})


def _changed(section: C, paths: Mapping[str, Path]) -> C:
    given = section.arguments
    fields = {info.alias: name for name, info in type(section).model_fields.items() if info.alias}
    values = {fields[name]: path if isinstance(given[name], Path) else str(path) for name, path in paths.items()}
    return section.model_copy(update=values)
