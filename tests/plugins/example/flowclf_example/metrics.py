"""A metric."""

from __future__ import annotations

from torch.nn.functional import one_hot

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metric import metric


@metric("test.brier_score", unit="number", meaning="mean squared distance of the probabilities from the label", card=True)
def brier_score(context: MetricContext) -> float:
    """Brier (1950), on the test set."""
    logits, labels = context.logits("test"), context.labels("test")
    return (logits.softmax(1) - one_hot(labels, logits.shape[1])).square().sum(1).mean().item()
