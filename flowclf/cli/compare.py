"""``flowclf compare``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flowclf.cli.options import JSON

if TYPE_CHECKING:
    from flowclf.run.comparison import Comparison

RUN = "Run directories, names of zoo models, files that `flowclf evaluate --json` printed, or directories of sweeps."


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help=RUN)],
    every: Annotated[bool, typer.Option("--all", help="Show every result, not only the main ones.")] = False,
    as_json: JSON = False,
) -> None:
    """Compare runs: results side by side, and the settings that differ.

    Intervals in brackets are 95 % intervals, for the random choice of test examples. Warns if results are not comparable because
    protocol, data, limit or versions differ. For runs that differ in their seed alone, also shows mean, standard deviation and
    range.
    """
    from flowclf.run import comparison

    print_comparison(comparison.compare([record for run in runs for record in comparison.read_runs(run)]), every, as_json)


def print_comparison(comparison: Comparison, every: bool = False, as_json: bool = False) -> None:
    """Print the results and the settings that differ; what is not comparable goes to standard error too."""
    from flowclf.cli.output import print_json, print_table
    from flowclf.run.comparison import settings_rows

    if as_json:
        print_json(comparison.data)
    else:
        print_table(*comparison.rows(every))
        if rows := settings_rows(comparison):
            print()
            print_table(["setting", *(run.name for run in comparison.runs)], rows)
    for problem in comparison.problems:
        print(f"warning: {problem}", file=sys.stderr)
