"""Evaluation: protocols, metrics, probes, metamers and planes.

:mod:`~flowclf.evaluation.evaluate` runs it, :mod:`~flowclf.evaluation.metrics` computes each number, and
:mod:`~flowclf.evaluation.metric` says how to add one.
"""

from __future__ import annotations

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.encoding import check_fits
from flowclf.evaluation.evaluate import Evaluation, evaluate, evaluate_with_artifacts, expected_seconds, measure
from flowclf.evaluation.figure_data import Arrays, metamer_pictures
from flowclf.evaluation.metric import Metric, metric
from flowclf.evaluation.oracles import ready_oracle
from flowclf.evaluation.probes import ProbeKind
from flowclf.evaluation.probing import nuisance_probe
from flowclf.evaluation.protocols import PROTOCOLS, EvaluationProtocol
from flowclf.settings import ProbeSettings

__all__ = [
    "PROTOCOLS",
    "Arrays",
    "Evaluation",
    "EvaluationProtocol",
    "Metric",
    "MetricContext",
    "ProbeKind",
    "ProbeSettings",
    "check_fits",
    "evaluate",
    "evaluate_with_artifacts",
    "expected_seconds",
    "measure",
    "metamer_pictures",
    "metric",
    "nuisance_probe",
    "ready_oracle",
]
