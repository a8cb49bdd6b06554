"""Results of finished runs: reading them, what makes them comparable, and how they vary."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowclf.errors import UsageError


class Spread(NamedTuple):
    """How a number varies over runs; the standard deviation is that of a sample, n - 1."""

    mean: float
    standard_deviation: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation, lowest and highest of at least two values.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        Spread(mean=2.0, standard_deviation=1.0, lowest=1.0, highest=3.0)
    """
    return Spread(statistics.mean(values), statistics.stdev(values), min(values), max(values))


def differing(runs: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> dict[str, list[Any]]:
    """The values of those of the keys, one per run, that are not the same in all runs; None where a run lacks one."""
    found = {key: [run.get(key) for run in runs] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def read_results(run: str | Path) -> dict[str, Any]:
    """Read the results in a run directory or a file.

    Raises:
        UsageError: if there are none, or they are not a JSON object.
    """
    path = Path(run)
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{run}: expected a finished run directory or a file of results, found no {file.name}")
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from error
    if not isinstance(results, dict):
        raise UsageError(f"{file}: expected a JSON object, found {type(results).__name__}")
    return results
