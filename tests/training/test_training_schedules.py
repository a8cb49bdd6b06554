"""Schedules: what they are called, and their values at given steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from flowclf import build_classifier, fit, registry
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.losses import FactorialPriorMLE
from flowclf.training.schedules import Schedule, build_schedule

half_cosine = 0.5 * (1 + math.cos(math.pi / 4))


@pytest.mark.parametrize(
    ("specification", "values"),
    [
        ({"name": "constant"}, {0: 1.0, 50: 1.0, 99: 1.0}),
        ({"name": "step", "every_epochs": 3, "factor": 0.1}, {0: 1.0, 29: 1.0, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.001}),
        ({"name": "step"}, {0: 1.0, 99: 1.0}),
        ({"name": "cosine"}, {0: 1.0, 25: half_cosine, 50: 0.5, 75: 1 - half_cosine, 100: 0.0, 120: 0.0}),
        (
            {"name": "one_cycle", "peak": 0.5, "start": 0.2},
            {0: 0.2, 25: 0.6, 50: 1.0, 75: 0.5, 100: 0.0, 120: 0.0},
        ),
        ({"name": "one_cycle"}, {0: 0.04, 15: 0.52, 30: 1.0, 65: 0.5, 100: 0.0}),
        ({"name": "one_cycle", "peak": 0.0}, {0: 1.0, 50: 0.5, 100: 0.0}),
        ({"name": "one_cycle", "peak": 1.0}, {0: 0.04, 50: 0.52, 99: 0.99976}),
        ({"name": "trapezoid"}, {0: 1.0, 60: 1.0, 80: 0.5, 90: 0.25, 100: 0.0}),
        ({"name": "trapezoid", "decay": 1.0}, {0: 1.0, 50: 0.5}),
        ({"name": "trapezoid", "decay": 0.5, "restarts": [0.4]}, {0: 1.0, 20: 1.0, 30: 0.5, 39: 0.05, 40: 1.0, 70: 1.0, 85: 0.5}),
        ({"name": "cosine", "restarts": [0.5], "peaks": [1.0, 0.2]}, {0: 1.0, 25: 0.5, 50: 0.2, 75: 0.1, 100: 0.0}),
        ({"name": "constant", "restarts": [0.5], "warmup_steps": 10}, {0: 0.1, 9: 1.0, 49: 1.0, 50: 0.1, 54: 0.5, 60: 1.0}),
        ({"name": "constant", "warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 99: 1.0}),
        ({"name": "cosine", "warmup_steps": 100}, {0: 0.01, 49: 0.5 * 0.5 * (1 + math.cos(math.pi * 0.49)), 100: 0.0}),
    ],
)
def test_schedules_at_given_steps(specification: dict[str, Any], values: dict[int, float]) -> None:
    """A hundred steps, ten an epoch."""
    schedule = build_schedule(specification, total_steps=100, steps_per_epoch=10)
    for step, value in values.items():
        assert schedule(step) == pytest.approx(value, abs=1e-5), step


def test_every_schedule_has_a_test() -> None:
    assert set(registry.schedules.names()) == {"constant", "step", "one_cycle", "cosine", "trapezoid"}


@pytest.mark.parametrize("name", registry.schedules.names())
def test_factors_stay_between_0_and_1(name: str) -> None:
    for total in (1, 2, 7, 100):
        schedule = build_schedule({"name": name}, total_steps=total, steps_per_epoch=3)
        assert all(0 <= schedule(step) <= 1 for step in range(total))
        assert any(schedule(step) > 0 for step in range(total))


def test_a_schedule_of_ones_own_rises_like_the_others(scratch_registries: None) -> None:
    @registry.schedules.register("halving")
    def halving(total_steps: int, steps_per_epoch: int, *, every: int = 1) -> Schedule:
        return lambda step: 0.5 ** (step // (every * steps_per_epoch))

    schedule = build_schedule({"name": "halving", "every": 2, "warmup_steps": 4}, total_steps=100, steps_per_epoch=10)
    assert [schedule(step) for step in (0, 3, 19, 20, 40)] == [0.25, 1.0, 1.0, 0.5, 0.25]
    data = DataSet.from_arrays(torch.randn(60, 4), torch.arange(60) % 2, batch_size=10, validation=20)
    clf = build_classifier((4,), ["actnorm", "split_head"], classes=2)
    optimizer = {"name": "sgd", "lr": 0.8}
    rows = fit(clf, FactorialPriorMLE(), data, epochs=4, optimizer=optimizer, schedule={"name": "halving", "every": 1})
    assert [row["learning_rate"] for row in rows] == [0.8, 0.4, 0.2, 0.1]
    with pytest.raises(UsageError, match=r"train\.schedule\.evry: unknown key 'evry'; did you mean 'every'\?"):
        fit(clf, FactorialPriorMLE(), data, schedule={"name": "halving", "evry": 1})


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"name": "onecycle"}, ["unknown schedule 'onecycle'", "'one_cycle'"]),
        ({}, ["unknown schedule 'None'"]),
        ({"name": "cosine", "peak": 0.3}, ["schedule cosine", "peak"]),
        ({"name": "cosine", "restarts": [0.5, 0.4]}, ["restarts: expected growing fractions", "[50, 40]"]),
        ({"name": "cosine", "restarts": [0.001]}, ["restarts", "[0]"]),
        ({"name": "cosine", "restarts": [0.5], "peaks": [1.0]}, ["peaks: expected 2 factors for 1 restarts", "[1.0]"]),
    ],
)
def test_schedules_that_cannot_be_are_refused(specification: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build_schedule(specification, 100, 10)
    assert all(word in str(caught.value) for word in words)
