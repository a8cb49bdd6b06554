"""Protocols: how much is measured; and what the probes are, where a protocol leaves it open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flowclf.errors import UsageError
from flowclf.registry import nearest

__all__ = ["PROTOCOLS", "EvaluationProtocol", "ProbeSettings", "protocol_named"]


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


@dataclass(frozen=True)
class ProbeSettings:
    """What the probes are, where the protocol leaves it open; the section ``evaluate.probe`` of a recipe.

    Attributes:
        hidden: units of each hidden layer of the probe ``mlp``.
        examples: probes are trained on so many examples of the training part, which is in random order; None for all.
    """

    hidden: Sequence[int] = (512, 512, 512)
    examples: int | None = None


def protocol_named(name: str) -> EvaluationProtocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown evaluation protocol '{name}'{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
