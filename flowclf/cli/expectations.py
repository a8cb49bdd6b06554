"""How long a command took before, said before torch is imported, which takes seconds; measured forecasts follow."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowclf.errors import FlowclfError
from flowclf.progress import LONG_SECONDS, duration


def say_cost_of_recipe(recipe: str) -> None:
    """Print what a recipe says of its cost in a comment ``# Cost: ...``, if it does; what is wrong with it is for its reader."""
    from flowclf.recipe import cost

    try:
        words = cost(recipe)
    except FlowclfError:
        return
    if words:
        print(f"cost, by the recipe's own account: {words}", file=sys.stderr)


def say_time_of_evaluation(model: str) -> None:
    """Print how long the evaluation of a run or a model of the zoo took after its training, if that was long and is on record."""
    reported = _reported(model)
    seconds, protocol = reported.get("seconds.evaluate"), reported.get("protocol")
    if isinstance(seconds, int | float) and seconds > LONG_SECONDS:
        print(f"after the training, under protocol {protocol}, the evaluation took {duration(seconds)}", file=sys.stderr)


def _reported(model: str) -> Mapping[str, Any]:
    from flowclf import zoo

    try:
        if (results := Path(model) / "results.json").is_file():
            found = json.loads(results.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        if Path(model).exists():
            return {}
        return next((entry.reported for entry in zoo.list() if entry.name == model), {})
    except (FlowclfError, OSError, ValueError):
        return {}
