"""Probes: fresh classifiers trained on a classifier's nuisances, to measure what these still hold about the class."""

from __future__ import annotations

from flowclf.architectures.nuisance_classifiers import ConvolutionalProbe, mlp, residual_blocks, widened
from flowclf.evaluation.probes.kernel import KERNEL_BANDWIDTHS, KernelMachine, train_kernel_probe
from flowclf.evaluation.probes.kinds import ProbeKind, probe_kinds, registered_probes
from flowclf.evaluation.probes.training import (
    Probe,
    ProbeScore,
    entropy_nats,
    mutual_information_nats,
    score_probe,
    train_probe,
)

__all__ = [
    "KERNEL_BANDWIDTHS",
    "ConvolutionalProbe",
    "KernelMachine",
    "Probe",
    "ProbeKind",
    "ProbeScore",
    "entropy_nats",
    "mlp",
    "mutual_information_nats",
    "probe_kinds",
    "registered_probes",
    "residual_blocks",
    "score_probe",
    "train_kernel_probe",
    "train_probe",
    "widened",
]
