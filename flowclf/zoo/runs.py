"""A finished run, as an entry of a zoo describes it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowclf import recipe as recipes
from flowclf.errors import CheckpointError, RecipeError, UsageError
from flowclf.recipe import Recipe
from flowclf.recipe.places import as_given, located
from flowclf.recipe.run_folder import RunFolder
from flowclf.strict_json import json_object
from flowclf.zoo.schema import RecipeRecord, Training

_MAX_CHANGES = 200
_FIGURES = (("metamers", "samples"), ("planes",), ("calibration",))


@dataclass(frozen=True)
class FinishedRun:
    """The content of a run directory.

    Attributes:
        model: folder of the trained model.
        recipe: recipe with every default filled in and absolute paths.
        given: recipe as it was given, before any changes to it.
        record: origin of the recipe and changes to it.
        results: content of ``results.json``.
        training: command, machine, time.
        figures: PNG files of metamers and samples; if there are none, of planes; otherwise of the calibration.
    """

    model: Path
    recipe: Recipe
    given: Recipe
    record: RecipeRecord
    results: dict[str, Any]
    training: Training
    figures: tuple[Path, ...]


def read_run(path: str | Path) -> FinishedRun:
    """Read a run directory.

    Raises:
        UsageError: if it is not one, the run has not finished, or its results are of a limited evaluation.
        CheckpointError: if a file in it is not what a run writes.
    """
    folder = RunFolder.existing(Path(path))
    folder.require(folder.results)
    results, environment = (json_object(file, str(file), CheckpointError) for file in (folder.results, folder.environment))
    if (limit := results.get("evaluation.limit")) is not None:
        raise UsageError(f"{path}: expected results on all test examples, found those of an evaluation limited to {limit}")
    try:
        text = folder.recipe.read_text(encoding="utf-8")
        given = recipes.loads(text, source=str(folder.recipe)).recipe
        recipe = located(recipes.load(folder.resolved).recipe)
    except (OSError, UnicodeDecodeError, RecipeError) as error:
        raise CheckpointError(f"{path}: the recipe of the run cannot be read: {error}") from error
    # Where the data are on this machine is no change to the recipe.
    changed = list(_changes(recipes.resolved(given), recipes.resolved(as_given(recipe, given))))[:_MAX_CHANGES]
    shipped = _shipped_name(given)
    # The bundled file is the one that a reader finds; comments in it may have changed since the run.
    text = recipes.find(shipped).read_text(encoding="utf-8") if shipped else text
    digest = hashlib.sha256(text.encode()).hexdigest()
    record = RecipeRecord(name=shipped or given.name, sha256=digest, shipped=shipped is not None, changed=changed)
    figures = ([folder.figures / f"{name}.png" for name in names] for names in _FIGURES)
    there = ([figure for figure in group if figure.is_file()] for group in figures)
    return FinishedRun(
        model=folder.model,
        recipe=recipe,
        given=given,
        record=record,
        results=results,
        training=Training(
            command=f"flowclf recipe run {shipped if shipped and not changed else 'recipe.yaml'}",
            machine=_machine(environment),
            seconds=_seconds(results.get("seconds.train")),
            torch=str(environment.get("torch", "unknown")),
        ),
        figures=tuple(next((group for group in there if group), [])),
    )


def _shipped_name(given: Recipe) -> str | None:
    """The name of the bundled recipe that is identical except for its name and description."""

    # The name in a recipe lacks the folder that is part of a bundled recipe's name.
    def settings(recipe: Recipe) -> dict[str, Any]:
        return recipes.resolved(recipe) | {"name": "", "description": ""}

    wanted = settings(given)
    return next((name for name in recipes.bundled() if settings(recipes.load(recipes.find(name)).recipe) == wanted), None)


def _changes(before: Any, after: Any, key: str = "") -> Iterator[str]:
    """The differences, each as ``key: before -> after``."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _changes(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield f"{key}: {json.dumps(before)[:200]} -> {json.dumps(after)[:200]}"[:500]


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else 0.0


def _machine(environment: Mapping[str, Any]) -> str:
    device = str(environment.get("device", "cpu"))
    threads = environment.get("threads", "?")
    processor = f"{threads} thread{'' if threads == 1 else 's'} of {environment.get('processor', 'an unknown processor')}"
    parts = [processor if device.startswith("cpu") else f"{device}; {processor}", str(environment.get("system", ""))]
    return ", ".join(part for part in parts if part)[:500]
