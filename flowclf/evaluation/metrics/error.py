"""The error: fraction of examples that are misclassified, its confidence interval, and what chance gives."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from flowclf.errors import UsageError
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metric import Metric
from flowclf.labels import class_numbers


def error(logits: Tensor, labels: Tensor) -> float:
    """Fraction of examples whose largest logit (N, K) is not that of their label (N,).

    Example:
        >>> error(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1]))
        0.5

    Raises as :func:`check_outputs`.
    """
    labels = check_outputs(logits, labels)
    return (logits.argmax(1) != labels).double().mean().item()


def balanced_error(logits: Tensor, labels: Tensor) -> float:
    """Mean over the classes that have examples of the fraction of them that is misclassified; the rest as :func:`error`.

    Example:
        >>> balanced_error(torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 0, 1]))
        0.5
    """
    labels = check_outputs(logits, labels)
    wrong, counts = (logits.argmax(1) != labels).double(), torch.bincount(labels)
    return (torch.bincount(labels, wrong) / counts)[counts > 0].mean().item()


def top5_error(logits: Tensor, labels: Tensor) -> float:
    """Fraction of examples whose label is not among the five largest logits; the rest as :func:`error`.

    Example:
        >>> top5_error(torch.arange(6.0).expand(2, 6), torch.tensor([0, 1]))
        0.5
    """
    labels = check_outputs(logits, labels)
    largest = logits.topk(min(5, logits.shape[1])).indices
    return (largest != labels[:, None]).all(1).double().mean().item()


def check_outputs(logits: Tensor, labels: Tensor) -> Tensor:
    """Check that logits (N, K) and labels (N,) belong together, and return the labels as int64.

    Raises:
        UsageError: if there are no examples, the shapes do not match, or the labels are not classes.
    """
    if logits.dim() != 2 or not len(logits):
        raise UsageError(f"expected logits (N, K) of at least one example, found {tuple(logits.shape)}")
    return class_numbers(labels, logits.shape[1], len(logits))


def _error_on(context: MetricContext, split: str) -> float:
    return error(context.logits(split), context.labels(split))


def _chance_error(context: MetricContext) -> float:
    labels = context.labels("test")
    return 1 - int(torch.bincount(labels).max()) / len(labels)


def example_count(context: MetricContext, split: str) -> int:
    """Number of examples of a split."""
    return len(context.labels(split))


METRICS = (
    *(
        Metric(
            f"{split}.error",
            "share",
            f"misclassified {words}",
            partial(_error_on, split=split),
            needs=("training",),
            card=split == "train",
        )
        for split, words in (("train", "training examples, without augmentation"), ("validation", "validation examples"))
    ),
    Metric(
        "test.error",
        "share",
        "misclassified test examples",
        partial(_error_on, split="test"),
        trials=partial(example_count, split="test"),
        headline="Test error",
    ),
    Metric(
        "test.top5_error",
        "share",
        "test examples whose class is not among the five of the largest logits",
        lambda context: top5_error(context.logits("test"), context.labels("test")),
        needs=("many_classes",),
        trials=partial(example_count, split="test"),
        card=True,
    ),
    Metric(
        "test.balanced_error",
        "share",
        "misclassified test examples of a class, mean over the classes",
        lambda context: balanced_error(context.logits("test"), context.labels("test")),
    ),
    Metric("test.chance_error", "share", "error of always predicting the most frequent class", _chance_error, card=True),
    *(
        Metric(
            f"{split}.examples",
            "count",
            f"number of {words} examples",
            partial(example_count, split=split),
            needs=() if split == "test" else ("training",),
        )
        for split, words in (("train", "training"), ("validation", "validation"), ("test", "test"))
    ),
)
