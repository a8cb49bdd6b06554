"""A fully connected subnet for vectors."""

from __future__ import annotations

from torch import nn

from flowclf.argument_types import NonNegativeInt, PositiveInt
from flowclf.subnets.building import starts_at_zero, takes_vectors


@takes_vectors
def dense(channels_in: int, channels_out: int, *, width: PositiveInt = 128, hidden_layers: NonNegativeInt = 2) -> nn.Module:
    """Fully connected ReLU network for vectors (B, D).

    Args:
        channels_in: size of the input.
        channels_out: size of the output.
        width: units of each hidden layer.
        hidden_layers: number of hidden layers.
    """
    layers: list[nn.Module] = []
    size = channels_in
    for _ in range(hidden_layers):
        layers += [nn.Linear(size, width), nn.ReLU()]
        size = width
    return nn.Sequential(*layers, starts_at_zero(nn.Linear(size, channels_out)))
