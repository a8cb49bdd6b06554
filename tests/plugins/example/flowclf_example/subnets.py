"""A subnet for vectors."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field
from torch import nn

from flowclf.subnets import starts_at_zero, takes_vectors


class Activation(Enum):
    """Nonlinearities by name."""

    TANH = "tanh"
    SOFTPLUS = "softplus"


Fraction = Annotated[int, Field(ge=2, le=64)]
"""Has the name of an alias of flowclf's and another meaning."""


@takes_vectors
def linear(channels_in: int, channels_out: int, *, rank: Fraction = 8, activation: Activation = Activation.TANH) -> nn.Module:
    """Two linear layers with a nonlinearity between them.

    Args:
        channels_in: size of the input.
        channels_out: size of the output.
        rank: units between the layers.
        activation: the nonlinearity.
    """
    between = nn.Tanh() if activation is Activation.TANH else nn.Softplus()
    return nn.Sequential(nn.Linear(channels_in, rank), between, starts_at_zero(nn.Linear(rank, channels_out)))
