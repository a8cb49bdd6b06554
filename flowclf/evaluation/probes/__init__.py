"""Probes: fresh classifiers trained on a classifier's nuisances, to learn what they still say about the class.

A probe is trained to convergence on features that the classifier under test has no influence on any more, with its own
standardisation, and judged on data that neither has met. Which probes a protocol trains is the evaluation's business. Only the
public names belong here.
"""

from __future__ import annotations

from flowclf.architectures.nuisance_classifiers import ConvolutionalProbe, mlp
from flowclf.evaluation.probes.information import entropy_nats, mutual_information_nats
from flowclf.evaluation.probes.kernel import KERNEL_BANDWIDTHS, KernelMachine, train_kernel_probe
from flowclf.evaluation.probes.training import Probe, ProbeScore, judge_probe, train_probe

__all__ = [
    "KERNEL_BANDWIDTHS",
    "ConvolutionalProbe",
    "KernelMachine",
    "Probe",
    "ProbeScore",
    "entropy_nats",
    "judge_probe",
    "mlp",
    "mutual_information_nats",
    "train_kernel_probe",
    "train_probe",
]
