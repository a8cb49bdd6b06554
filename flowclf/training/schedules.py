"""Learning-rate schedules, whose names are registered in pyproject.toml (entry points).

A schedule is a function ``schedule(total_steps, steps_per_epoch, *, ...)`` of the steps of the whole training and of an epoch; it
returns a :data:`Schedule`. It is registered in the group ``flowclf.schedules``; its keyword arguments are keys of a recipe, beside
``warmup_steps``, which all schedules have.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from flowclf import registry
from flowclf.argument_types import Fraction, PositiveFraction, PositiveInt, ProperFraction
from flowclf.errors import UsageError

Schedule: TypeAlias = Callable[[int], float]
"""From the step, counted from 0, to the factor on the learning rate. It depends on nothing else, so resuming needs no state."""


def constant(total_steps: int, steps_per_epoch: int) -> Schedule:
    """The learning rate does not change."""
    return lambda step: 1.0


def step(total_steps: int, steps_per_epoch: int, *, every_epochs: PositiveInt = 30, factor: ProperFraction = 0.2) -> Schedule:
    """The learning rate is multiplied by a factor every few epochs.

    Args:
        every_epochs: epochs between two drops.
        factor: what each drop multiplies the learning rate by.
    """
    return lambda step: factor ** (step // (steps_per_epoch * every_epochs))


def cosine(total_steps: int, steps_per_epoch: int) -> Schedule:
    """The learning rate falls to 0 along half a cosine."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / total_steps)))


def one_cycle(total_steps: int, steps_per_epoch: int, *, peak: ProperFraction = 0.3, start: Fraction = 0.04) -> Schedule:
    """The learning rate rises, then falls to almost 0, both along a cosine (Smith and Topin, 2018).

    Args:
        peak: where the learning rate is largest, as a fraction of the training.
        start: learning rate of the first step, as a fraction of the largest.
    """
    top = peak * total_steps

    def factor(step: int) -> float:
        if step < top:
            return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - top) / (total_steps - top))))

    return factor


def trapezoid(total_steps: int, steps_per_epoch: int, *, decay: PositiveFraction = 0.4) -> Schedule:
    """The learning rate is constant, then falls linearly to 0 at the end.

    Args:
        decay: fraction of the training, at its end, over which the learning rate falls.
    """
    return lambda step: min(1.0, (1 - step / total_steps) / decay)


def build_schedule(specification: Mapping[str, Any], total_steps: int, steps_per_epoch: int) -> Schedule:
    """A registered schedule by ``name``, with its arguments, multiplied by a linear rise over the first ``warmup_steps``, if any.

    With ``restarts``, fractions of the training, it begins again at each, and takes the steps until the next for its whole;
    ``peaks`` are factors of the parts.

    Raises:
        RegistryError: if the name is not registered.
        UsageError: if the schedule does not take an argument.

    Example:
        >>> schedule = build_schedule({"name": "trapezoid", "decay": 0.5}, total_steps=100, steps_per_epoch=10)
        >>> schedule(0), schedule(75)
        (1.0, 0.5)
    """
    arguments = dict(specification)
    name, warmup = str(arguments.pop("name", None)), arguments.pop("warmup_steps", 0)
    restarts, peaks = arguments.pop("restarts", ()), arguments.pop("peaks", ())
    starts = [0, *(round(fraction * total_steps) for fraction in restarts), total_steps]
    if sorted(set(starts)) != starts:
        raise UsageError(
            f"schedule {name}: restarts: expected growing fractions between 0 and 1, apart by a step, found {starts[1:-1]}"
        )
    if peaks and len(peaks) != len(restarts) + 1:
        raise UsageError(
            f"schedule {name}: peaks: expected {len(restarts) + 1} factors for {len(restarts)} restarts, found {peaks}"
        )
    make = registry.schedules.get(name)
    try:
        parts: list[Schedule] = [make(end - start, steps_per_epoch, **arguments) for start, end in itertools.pairwise(starts)]
    except TypeError as error:
        raise UsageError(f"schedule {name}: {error}") from error

    def factor(step: int) -> float:
        part = max(0, min(bisect.bisect_right(starts, step), len(parts)) - 1)
        since = step - starts[part]
        return (peaks[part] if peaks else 1.0) * parts[part](since) * (min(1.0, (since + 1) / warmup) if warmup else 1.0)

    return factor
