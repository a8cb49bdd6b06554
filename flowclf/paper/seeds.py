"""Variation of a recipe's results between seeds; the command is ``flowclf paper seeds``.

The intervals in a run's own results reflect only the random choice of the test images or metamer pairs. The one here is the 95 %
prediction interval for one more training with another seed: mean -+ t s sqrt(1 + 1/n), with the standard deviation s of n runs and
Student's t for n - 1 degrees of freedom. For two runs it would be meaninglessly wide and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from flowclf.errors import UsageError
from flowclf.paper.table2 import ROWS, about, share
from flowclf.recipe.results import differing, spread

SAME = ("recipe", "protocol", "evaluation.limit", "model.parameters", "data.bits")


def expected(values: Sequence[float]) -> tuple[float, float]:
    """Compute the ends of the 95 % prediction interval from at least two values.

    Example:
        >>> low, high = expected([1.0, 2.0, 3.0])
        >>> f"{low:.2f} to {high:.2f}"
        '-2.97 to 6.97'
    """
    of = spread(values)
    half = stats.t.ppf(0.975, len(values) - 1) * of.standard_deviation * math.sqrt(1 + 1 / len(values))
    return of.mean - half, of.mean + half


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Format the table as Markdown.

    Raises:
        UsageError: if there are fewer than two runs, two runs have the same seed, or the recipes differ.
    """
    # The output of ``flowclf evaluate`` does not contain the training's seed.
    names = [f"seed {results['seed']}" if "seed" in results else f"run {place}" for place, results in enumerate(runs)]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"expected at least two runs with different seeds, found {', '.join(names)}")
    for key, found in differing(runs, SAME).items():
        raise UsageError(f"expected runs of one recipe, found {key} {', '.join(sorted(set(map(str, found))))}")
    lines = [f"| | {' | '.join(names)} | mean | another seed, 95 % |", "|---" * (len(runs) + 3) + "|"]
    for words, key, written in ROWS:
        values = [results[key] for results in runs if results.get(key) is not None]
        if len(values) < len(runs):
            continue
        # The runs' own intervals are left out: they measure something else.
        shown = [written({key: value}, key) for value in (*values, spread(values).mean)]
        interval = "–"
        if len(runs) > 2:
            # No result can be below 0, and no fraction above 1.
            most = 1.0 if written is share else math.inf
            interval = " to ".join(written({key: min(max(end, 0.0), most)}, key) for end in expected(values))
        lines.append(f"| {words} | {' | '.join(shown)} | {interval} |")
    together = {key: value for key, value in runs[0].items() if key not in ("seed", "probe.name")}
    return "\n".join([*lines, "", f"{about(together)}."])
