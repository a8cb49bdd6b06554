"""Comparison of runs: their results side by side, what differs in their settings, and whether their results are comparable.

Runs that differ in their seed alone also get the mean, standard deviation and range of each result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowclf import recipe as recipes
from flowclf import zoo
from flowclf.errors import CheckpointError, FlowclfError, UsageError
from flowclf.evaluation.metric import describe, registered_metrics
from flowclf.recipe.results import differing, read_results, spread
from flowclf.recipe.run_folder import RunFolder
from flowclf.report.terms import number, percent
from flowclf.strict_json import json_object

SWEEP = "sweep.json"
"""File that makes a folder a sweep: the seeds, each of whose runs is in the folder ``seed-N``."""

_ALL = "all results"
_INCOMPARABLE: Mapping[str, str] = {
    "data.name": _ALL,
    "data.class_names": _ALL,
    "test.examples": _ALL,
    "evaluation.limit": _ALL,
    "evaluation.left_out": "what one of them lacks",
    "protocol": "probe.* and metamers.*",
    "probe.hidden": "probe.*",
    "probe.train_examples": "probe.*",
    "data.bits": "*.bits_per_dim",
    "model.kind": "results that need an inverse",
}
_VERSIONS = ("flowclf", "torch")
# Of the section data, these change what is trained, not what is measured; the depth is compared as a result.
_TRAINING_DATA = ("batch_size", "augment", "train_limit", "validation", "bits", "pad", "name")
_NOT_SETTINGS = ("description",)


@dataclass(frozen=True)
class RunRecord:
    """What is known about a run: its name, results, recipe as dotted keys, and versions; the last two may be empty."""

    name: str
    results: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: the runs.
        settings: settings that differ, by dotted key: a value per run, None where a run lacks it or is not known.
        problems: why results are not comparable, a sentence each; empty if they are.
    """

    runs: tuple[RunRecord, ...]
    settings: Mapping[str, Sequence[Any]]
    problems: tuple[str, ...]

    @property
    def seeds_only(self) -> bool:
        """Whether the runs differ in their seed alone."""
        seeds = [run.results.get("seed") for run in self.runs]
        return not self.problems and set(self.settings) <= {"seed"} and None not in seeds and len(set(seeds)) == len(seeds)

    def keys(self, every: bool = False) -> list[str]:
        """Keys of the results to show: those of metrics that stand out in reports or on cards, or every number."""
        found = dict.fromkeys(key for run in self.runs for key, value in run.results.items() if _is_number(value))
        shown = [one for one in registered_metrics() if one.headline or one.card]
        matches = {key: match for key in found for one in shown if (match := one.match(key))}
        ends = {f"{key}{end}" for key in found for end in ("_low", "_high")}
        return [key for key in found if (every or key in matches) and key not in ends and key != "seed"]

    def rows(self, every: bool = False) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of a table in words: a result per row, a run per column."""
        columns = ["result", *(run.name for run in self.runs)]
        columns += ["mean", "standard deviation", "range"] if self.seeds_only else []
        rows = []
        for key in self.keys(every):
            values = [run.results.get(key) for run in self.runs]
            row = [key, *(_shown(run.results, key) for run in self.runs)]
            if self.seeds_only:
                complete = [value for value in values if _is_number(value)]
                row += _spread_cells(key, complete) if len(complete) == len(values) else ["–"] * 3
            rows.append(row)
        return columns, rows

    @property
    def data(self) -> dict[str, Any]:
        """The comparison for JSON, with all results."""
        keys = dict.fromkeys(key for run in self.runs for key in run.results)
        results: dict[str, list[Any]] = {key: [run.results.get(key) for run in self.runs] for key in keys}
        document: dict[str, Any] = {
            "runs": [run.name for run in self.runs],
            "comparable": not self.problems,
            "problems": list(self.problems),
            "settings": {key: list(values) for key, values in self.settings.items()},
            "results": results,
        }
        if self.seeds_only:
            numbers = [key for key in self.keys(every=True) if all(map(_is_number, results[key]))]
            document["spread"] = {key: spread(results[key])._asdict() for key in numbers}
        return document


def compare(runs: Sequence[RunRecord]) -> Comparison:
    """Compare runs.

    Raises:
        UsageError: if there are fewer than two.
    """
    if len(runs) < 2:
        raise UsageError(f"expected at least two runs to compare, found {len(runs)}")
    known = [run.settings for run in runs if run.settings]
    keys = dict.fromkeys(key for settings in known for key in settings if key not in _NOT_SETTINGS)
    # A run without its recipe differs in nothing that is known.
    settings = {key: [run.settings.get(key) for run in runs] for key in differing(known, keys)}
    return Comparison(tuple(runs), settings, tuple(_problems(runs, settings)))


def _problems(runs: Sequence[RunRecord], settings: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    results = [run.results for run in runs]
    for key, affected in _INCOMPARABLE.items():
        # Results of earlier versions lack some keys; that they were limited, or left something out, is always said.
        optional = key.startswith("evaluation.")
        there = [index for index, run in enumerate(results) if optional or key in run]
        if found := differing([results[index] for index in there], [key]):
            shown = ", ".join(f"{runs[index].name}: {_plain(value)}" for index, value in zip(there, found[key], strict=True))
            yield f"{key} differs ({shown}), so these are not comparable: {affected}"
    for key, values in settings.items():
        section, _, name = key.partition(".")
        of_data = section == "data" and "data.name" not in settings and name.split(".")[0] not in _TRAINING_DATA
        if of_data or key == "evaluate.oracle":
            affected = _ALL if of_data else "metamers.oracle.*"
            yield f"{key} differs ({', '.join(map(_plain, values))}), so these may not be comparable: {affected}"
    versions = [run.versions for run in runs if run.versions]
    for key, numbers in differing(versions, _VERSIONS).items():
        yield f"the version of {key} differs ({', '.join(map(_plain, numbers))}), which may change results a little"


def read_runs(source: str) -> list[RunRecord]:
    """Read a run directory, a zoo model, a file that ``flowclf evaluate --json`` printed, or the runs of a sweep.

    Raises:
        UsageError: if there is no such run or model, or it has not finished.
        CheckpointError: if a file of the run cannot be read.
    """
    path = Path(source)
    if (path / SWEEP).is_file():
        return [_read_folder(path / f"seed-{seed}", f"seed {seed}") for seed in sweep_seeds(path)]
    if path.is_dir():
        return [_read_folder(path, source)]
    if path.exists():
        return [RunRecord(source, read_results(path))]
    try:
        entry = zoo.info(source)
    except UsageError as error:
        raise UsageError(f"there is no run directory or file {source}, and {error}") from error
    settings = _settings(zoo.model_folder(source) / "recipe.yaml")
    return [RunRecord(source, entry.reported, settings, {"flowclf": entry.flowclf, "torch": entry.training.torch})]


def sweep_seeds(folder: Path) -> list[int]:
    """The seeds of a sweep.

    Raises:
        CheckpointError: if the file does not list at least two different integers.
    """
    seeds = json_object(folder / SWEEP, str(folder / SWEEP), CheckpointError).get("seeds")
    integers = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not isinstance(seeds, list) or not integers or len(set(seeds)) < max(2, len(seeds)):
        raise CheckpointError(f"{folder / SWEEP}: expected a list of different seeds, found {seeds!r}")
    return seeds


def _read_folder(path: Path, name: str) -> RunRecord:
    folder = RunFolder(path)
    versions = json_object(folder.environment, str(folder.environment), CheckpointError) if folder.environment.is_file() else {}
    return RunRecord(name, read_results(path), _settings(folder.resolved), versions)


def _settings(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return dict(_flat(recipes.resolved(recipes.load(file).recipe)))
    except FlowclfError as error:
        raise CheckpointError(f"the recipe of the run cannot be read: {error}") from error


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flat(part, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(results: Mapping[str, Any], key: str) -> str:
    if results.get(key) is None:
        return "–"
    low, high = results.get(f"{key}_low"), results.get(f"{key}_high")
    interval = "" if low is None or high is None else f" ({100 * low:.2f} to {100 * high:.2f})"
    return number(key, results[key]).replace("\u00a0", " ") + interval


def _spread_cells(key: str, values: Sequence[Any]) -> list[str]:
    of = spread(values)
    words = percent if describe(key)[0] == "share" else lambda value: number(key, float(value))
    cells = [words(of.mean), words(of.standard_deviation), f"{words(of.lowest)} to {words(of.highest)}"]
    return [cell.replace("\u00a0", " ") for cell in cells]


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def settings_rows(comparison: Comparison) -> list[list[str]]:
    """The settings that differ, in words: a setting per row, a run per column."""
    return [[key, *map(_plain, values)] for key, values in comparison.settings.items()]
