"""A moving average of a module's weights, and weights for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

Weights = dict[str, torch.Tensor]
"""A state dict of a module."""


def copied(weights: Weights) -> Weights:
    """A copy that does not change with the module."""
    return {name: value.detach().clone() for name, value in weights.items()}


@contextlib.contextmanager
def holding(module: nn.Module, weights: Weights) -> Iterator[None]:
    """Within the block, the module has these weights; then again its own."""
    own = copied(module.state_dict())
    module.load_state_dict(weights)
    try:
        yield
    finally:
        module.load_state_dict(own)


class MovingAverage:
    """Exponential moving average of every floating-point parameter; buffers are copied as they are.

    The decay rate of update t is min(``decay``, (1 + t) / (10 + t)): it starts low, so that the initial weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.updates = 0
        self.average = copied(module.state_dict())
        self._averaged = {name for name, p in module.named_parameters(remove_duplicate=False) if p.is_floating_point()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = self.module.state_dict()
        for name in current.keys() - self._averaged:
            self.average[name].copy_(current[name])
        names = [name for name in current if name in self._averaged]
        torch._foreach_lerp_([self.average[name] for name in names], [current[name] for name in names], 1 - decay)

    def applied(self) -> contextlib.AbstractContextManager[None]:
        """Within the block, the module's weights are the average."""
        return holding(self.module, self.average)

    def state_dict(self) -> dict[str, Any]:
        """State for resuming."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of :meth:`state_dict`."""
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.updates = int(state["updates"])
