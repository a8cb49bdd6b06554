"""The built-in metrics, one file per topic: functions of tensors, and what they are called in the results.

- ``error``: test error, its interval, chance; ``likelihood``: cross-entropy, bits per dimension; ``calibration``
- ``numerics``: inverse errors; ``probes``; ``metamers``; ``planes``; ``facts``: what was evaluated and how

The results keep their order. All are registered by the one entry point ``flowclf`` of the group ``flowclf.metrics``, to which
any package can add its own; see :mod:`flowclf.evaluation.metric`.
"""

from __future__ import annotations

from flowclf.evaluation.metrics import calibration, error, facts, likelihood, metamers, numerics, planes, probes

__all__ = ["METRICS"]

METRICS = (
    *facts.METRICS,
    *error.METRICS,
    *likelihood.METRICS,
    *calibration.METRICS,
    *numerics.METRICS,
    *probes.METRICS,
    *metamers.METRICS,
    *planes.METRICS,
)
