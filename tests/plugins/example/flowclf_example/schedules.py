"""A schedule."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval

from flowclf.training.schedules import Schedule


def sawtooth(total_steps: int, steps_per_epoch: int, *, teeth: Annotated[int, Interval(ge=1, le=9)] = 2) -> Schedule:
    """The learning rate falls linearly to 0, several times.

    Args:
        total_steps: of the whole training.
        steps_per_epoch: batches per epoch.
        teeth: how many times.
    """
    return lambda step: 1 - (step * teeth / total_steps) % 1
