"""The built-in metrics, one file per topic, in the order of the results.

All are registered by the one entry point ``flowclf`` of the group ``flowclf.metrics``; :mod:`flowclf.evaluation.metric` says how a
package adds its own.
"""

from __future__ import annotations

from flowclf.evaluation.metrics import (
    calibration,
    confusion,
    error,
    facts,
    generation,
    likelihood,
    metamers,
    numerics,
    planes,
    probes,
)

__all__ = ["METRICS"]

_TOPICS = (facts, error, confusion, likelihood, calibration, numerics, probes, metamers, generation, planes)
METRICS = tuple(metric for topic in _TOPICS for metric in topic.METRICS)
