"""Means of what the training steps measure, and how fast they are."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flowclf.errors import NonFiniteLossError


class Meters:
    """Means over steps of scalars by name; ``latest`` has the values of the last step that was read.

    Values are read from the device every ``read_every`` steps, for each read waits for a GPU.

    Example:
        >>> meters = Meters()
        >>> for step, loss in enumerate([3.0, 1.0]):
        ...     meters.record(step, {"loss": torch.tensor(loss)})
        >>> meters.latest, meters.means()
        ({'loss': 1.0}, {'loss': 2.0})
    """

    def __init__(self, read_every: int = 1) -> None:
        self.read_every = read_every
        self.latest: dict[str, float] = {}
        self._unread: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Record the values of a step: tensors of one element, on any device; raises as :meth:`read`."""
        device = next(iter(values.values())).device
        stacked = torch.stack([value.detach().to(device, torch.float64).reshape(()) for value in values.values()])
        self._unread.append((step, tuple(values), stacked))
        if len(self._unread) >= self.read_every:
            self.read()

    def read(self) -> None:
        """Add up what was recorded since the last read.

        Raises:
            NonFiniteLossError: if a value is not finite; the message names it, and the step.
        """
        unread, self._unread = self._unread, []
        # All in one transfer, for each waits for the device.
        numbers = iter(torch.cat([values for _, _, values in unread]).tolist() if unread else [])
        for step, names, _ in unread:
            self.latest = dict(zip(names, numbers, strict=False))
            _check_finite(step, self.latest)
            for name, number in self.latest.items():
                self._sums[name] = self._sums.get(name, 0.0) + number
                self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The mean of each value over the steps that recorded it, since the last :meth:`reset`."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def reset(self) -> None:
        """Begin again, for the next epoch."""
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """State for resuming, after a :meth:`read`."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of :meth:`state_dict`, which may have further keys."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._unread, self.latest = [], {}


class Pace:
    """Examples per second over the latest steps, at most ``steps`` of them, with the time that they waited for data.

    Example:
        >>> pace = Pace()
        >>> pace.advance(128) >= 0
        True
    """

    def __init__(self, steps: int = 50) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=steps + 1)
        self.restart()

    def restart(self) -> None:
        """Begin again, after something that is not a step."""
        self._steps.clear()
        self._steps.append((time.perf_counter(), 0))

    def advance(self, examples: int) -> float:
        """Count the examples of a step that has just ended; returns examples per second."""
        self._steps.append((time.perf_counter(), examples))
        counted = sum(examples for _, examples in list(self._steps)[1:])
        return counted / max(self._steps[-1][0] - self._steps[0][0], 1e-9)


def _check_finite(step: int, numbers: Mapping[str, float]) -> None:
    wrong = {name: f"{name} is {number}" for name, number in numbers.items() if not math.isfinite(number)}
    # The terms of the loss say more than their sum, and both say more than what comes of them.
    if terms := [message for name, message in wrong.items() if name not in ("loss", "gradient_norm")]:
        raise NonFiniteLossError(f"step {step}: {', '.join(terms)}")
    if "loss" in wrong:
        raise NonFiniteLossError(f"step {step}: {wrong['loss']}")
    if wrong:
        norm, loss = numbers["gradient_norm"], numbers["loss"]
        raise NonFiniteLossError(f"step {step}: the norm of the gradient is {norm}; the loss is {loss}")
