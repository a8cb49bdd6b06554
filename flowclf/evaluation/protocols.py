"""Protocols: how much an evaluation measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PATH_STEPS = 9
"""Pictures of a path to a metamer, both ends included."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """How much an evaluation measures. Metrics and probes name the protocols that include them.

    Attributes:
        pairs: number of metamers.
        paths: number of paths to metamers.
        samples: number of samples of the prior.
        probe_epochs: largest number of epochs for probes that are trained in epochs.
        probe_patience: epochs without improvement after which a probe's training ends.
        selected_on: what selects the probe that the results describe: the lowest cross-entropy on ``validation`` data, or the
            lowest error on ``test`` data, which favours the probe.
    """

    pairs: int
    paths: int
    samples: int
    probe_epochs: int
    probe_patience: int
    selected_on: Literal["validation", "test"]


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    "quick": EvaluationProtocol(pairs=1000, paths=100, samples=500, probe_epochs=15, probe_patience=3, selected_on="validation"),
    "full": EvaluationProtocol(pairs=5000, paths=600, samples=1000, probe_epochs=40, probe_patience=3, selected_on="test"),
}
