"""Protocols: how much is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flowclf.errors import UsageError
from flowclf.registry import nearest

__all__ = ["PROTOCOLS", "EvaluationProtocol", "protocol_named"]


@dataclass(frozen=True)
class EvaluationProtocol:
    """How much work an evaluation is.

    Attributes:
        pairs: metamers.
        probes: names of the probes: ``mlp`` sees the nuisances as a vector, ``conv`` as feature maps, and ``kernel`` is no network.
        probe_epochs: at most so many epochs for each that is trained in epochs.
        probe_patience: epochs without improvement that end a probe's training.
        judge: which probe the results are of: the one with the lowest cross-entropy on ``validation`` data, or, to leave no
            doubt, the one with the lowest error on ``test`` data.
    """

    pairs: int
    probes: tuple[str, ...]
    probe_epochs: int
    probe_patience: int
    judge: Literal["validation", "test"]


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    "quick": EvaluationProtocol(pairs=1000, probes=("mlp",), probe_epochs=15, probe_patience=3, judge="validation"),
    "full": EvaluationProtocol(pairs=5000, probes=("mlp", "conv", "kernel"), probe_epochs=40, probe_patience=3, judge="test"),
}


def protocol_named(name: str) -> EvaluationProtocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown evaluation protocol '{name}'{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
