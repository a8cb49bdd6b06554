"""Protocols: how much is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flowclf.errors import UsageError
from flowclf.registry import nearest


@dataclass(frozen=True)
class EvaluationProtocol:
    """How much work an evaluation is. Metrics and probes name the protocols that they are a part of.

    Attributes:
        pairs: number of metamers.
        probe_epochs: largest number of epochs for probes that are trained in epochs.
        probe_patience: epochs without improvement after which a probe's training ends.
        selected_on: how the probe is selected that the results describe: by the lowest cross-entropy on ``validation`` data or, to
            leave no doubt, by the lowest error on ``test`` data.
    """

    pairs: int
    probe_epochs: int
    probe_patience: int
    selected_on: Literal["validation", "test"]


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    "quick": EvaluationProtocol(pairs=1000, probe_epochs=15, probe_patience=3, selected_on="validation"),
    "full": EvaluationProtocol(pairs=5000, probe_epochs=40, probe_patience=3, selected_on="test"),
}


def protocol_named(name: str) -> EvaluationProtocol:
    """The protocol of that name.

    Raises:
        UsageError: if there is none.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown evaluation protocol '{name}'{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
