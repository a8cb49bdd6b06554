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
        probe_batch: examples per step of a probe's training.
        probe_learning_rate: learning rate of a probe's first epoch.
        probe_anneal: whether the learning rate of probes falls to 0 over the epochs.
        probe_epoch_steps: smallest number of steps in a probe's epoch, so that few examples are passed several times.
        probe_draws: largest number of draws of noise and augmentation of the training images that probes see in training.
        probe_growth: largest number of times its first size to which a probe grows while validation data say that it helps.
        probe_curve: whether the probe selected on validation data is trained on parts of the training examples too.
        selected_on: what selects the probe that the results describe: the lowest cross-entropy on ``validation`` data, or the
            lowest error on ``test`` data, which favours the probe.
    """

    pairs: int
    paths: int
    samples: int
    probe_epochs: int
    probe_patience: int
    probe_batch: int
    probe_learning_rate: float
    probe_anneal: bool
    probe_epoch_steps: int
    probe_draws: int
    probe_growth: int
    probe_curve: bool
    selected_on: Literal["validation", "test"]


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    "quick": EvaluationProtocol(
        pairs=1000,
        paths=100,
        samples=500,
        probe_epochs=15,
        probe_patience=3,
        probe_batch=512,
        probe_learning_rate=1e-3,
        probe_anneal=False,
        probe_epoch_steps=1,
        probe_draws=1,
        probe_growth=1,
        probe_curve=False,
        selected_on="validation",
    ),
    # Probes of every kind are trained at several sizes. On four draws of noisy digits, six annealed epochs reached the
    # cross-entropy that took 37 in the way of "quick", where the learning rate only falls when validation data improve no more.
    "full": EvaluationProtocol(
        pairs=5000,
        paths=600,
        samples=1000,
        probe_epochs=6,
        probe_patience=2,
        probe_batch=256,
        probe_learning_rate=3e-3,
        probe_anneal=True,
        probe_epoch_steps=50,
        probe_draws=4,
        probe_growth=4,
        probe_curve=True,
        selected_on="test",
    ),
}
