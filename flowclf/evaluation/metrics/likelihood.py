"""Likelihood: of the labels, as cross-entropy; of the data, as bits per dimension."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional

from flowclf.evaluation.context import MetricContext, Need
from flowclf.evaluation.metric import Metric
from flowclf.evaluation.metrics.error import check_outputs


def cross_entropy_nats(logits: Tensor, labels: Tensor) -> float:
    """Mean of -log softmax(logits)[label], nats, summed in float64; raises as :func:`check_outputs`."""
    labels = check_outputs(logits, labels)
    return functional.cross_entropy(logits.double(), labels).item()


def _cross_entropy(context: MetricContext, split: str) -> float:
    return cross_entropy_nats(context.logits(split), context.labels(split))


def _bits_per_dim(context: MetricContext, split: str) -> float:
    log_prob = context.encoded(split).log_prob
    return context.classifier.preprocessing.bits_per_dim(log_prob.double()).mean().item()


def _needs(split: str) -> tuple[Need, ...]:
    return () if split == "test" else ("training",)


METRICS = tuple(
    metric
    for split, words in (("train", "training"), ("validation", "validation"), ("test", "test"))
    for metric in (
        Metric(
            f"{split}.cross_entropy_nats",
            "nats",
            f"cross-entropy on {words} data: mean −log probability of the label",
            partial(_cross_entropy, split=split),
            needs=_needs(split),
        ),
        Metric(
            f"{split}.bits_per_dim",
            "bits",
            f"code length of the {words} data, per dimension",
            partial(_bits_per_dim, split=split),
            needs=("inverse", *_needs(split)),
            headline="Bits/dim" if split == "test" else "",
        ),
    )
)
