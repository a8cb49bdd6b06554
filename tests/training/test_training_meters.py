"""Meters: means over the steps that recorded a value, whenever they are read, and the first step that is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowclf.errors import NonFiniteLossError
from flowclf.training.meters import Meters


def values(**numbers: float) -> dict[str, Tensor]:
    return {name: torch.tensor(number) for name, number in numbers.items()}


@pytest.mark.parametrize("read_every", [1, 2, 16])
def test_a_mean_is_over_the_steps_that_recorded_it(read_every: int) -> None:
    meters = Meters(read_every)
    meters.record(0, values(loss=1.0, gradient_norm=4.0))
    meters.record(1, values(loss=3.0, late=5.0, gradient_norm=8.0))
    meters.record(2, values(loss=5.0, late=7.0, gradient_norm=0.0))
    meters.read()
    assert meters.means() == {"loss": 3.0, "gradient_norm": 4.0, "late": 6.0}
    assert meters.latest == {"loss": 5.0, "late": 7.0, "gradient_norm": 0.0}
    meters.reset()
    assert meters.means() == {}


def test_numbers_are_read_after_so_many_steps() -> None:
    meters = Meters(3)
    for step in range(5):
        meters.record(step, values(loss=float(step)))
    assert meters.latest == {"loss": 2.0}
    assert meters.means() == {"loss": 1.0}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"loss": float("nan"), "bits": float("inf"), "gradient_norm": 1.0}, "step 1: bits is inf$"),
        ({"loss": float("nan"), "bits": 1.0, "gradient_norm": float("nan")}, "step 1: loss is nan$"),
        ({"loss": 2.0, "gradient_norm": float("inf")}, "step 1: the norm of the gradient is inf; the loss is 2.0$"),
    ],
)
def test_what_is_not_finite_is_named_with_its_step(numbers: dict[str, float], message: str) -> None:
    meters = Meters(3)
    meters.record(0, values(loss=1.0, gradient_norm=1.0))
    meters.record(1, values(**numbers))
    with pytest.raises(NonFiniteLossError, match=message):
        meters.read()


def test_a_state_restores_the_sums_and_forgets_what_was_not_read() -> None:
    meters = Meters(2)
    meters.record(0, values(loss=1.0))
    meters.record(1, values(loss=2.0))
    again = Meters(2)
    again.record(7, values(loss=100.0))
    again.load_state_dict(meters.state_dict())
    again.record(2, values(loss=6.0))
    again.read()
    assert again.means() == {"loss": 3.0}
