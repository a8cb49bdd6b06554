"""A probe."""

from __future__ import annotations

from torch import nn

from flowclf.evaluation.probes import ProbeKind

LINEAR = ProbeKind(
    "linear, on the nuisances as a vector",
    network=lambda clf, settings: nn.Linear(clf.dimensions - clf.classes, clf.classes),
    protocols=("quick", "full"),
)
