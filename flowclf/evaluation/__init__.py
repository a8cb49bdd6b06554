"""Evaluation: protocols, what they measure and what it is called, and the arrays that figures are drawn from.

Only the public names belong here. The measures themselves are in metrics, numerics, probes, metamers and planes.
"""

from __future__ import annotations

from flowclf.evaluation.encoding import check_fits, classify_all, encode_all
from flowclf.evaluation.evaluate import Evaluation, evaluate, evaluate_with_artifacts
from flowclf.evaluation.figure_data import Arrays, metamer_pictures
from flowclf.evaluation.oracles import ready_oracle
from flowclf.evaluation.probing import nuisance_probe
from flowclf.evaluation.protocols import PROTOCOLS, EvaluationProtocol
from flowclf.settings import ProbeSettings

__all__ = [
    "PROTOCOLS",
    "Arrays",
    "Evaluation",
    "EvaluationProtocol",
    "ProbeSettings",
    "check_fits",
    "classify_all",
    "encode_all",
    "evaluate",
    "evaluate_with_artifacts",
    "metamer_pictures",
    "nuisance_probe",
    "ready_oracle",
]
