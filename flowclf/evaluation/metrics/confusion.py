"""Confusions: which classes are taken for which, and the error of each class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metric import Metric
from flowclf.evaluation.metrics.error import check_outputs


def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """Numbers of examples (K, K), int64, by class (rows) and predicted class (columns).

    Raises as :func:`flowclf.evaluation.metrics.error.check_outputs`.

    Example:
        >>> confusion_matrix(torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])).tolist()
        [[1, 0], [1, 1]]
    """
    check_outputs(logits, labels)
    classes = logits.shape[1]
    return torch.bincount(classes * labels + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


def confusion_of(context: MetricContext) -> Tensor:
    """The confusion matrix of the test data."""
    return confusion_matrix(context.logits("test"), context.labels("test"))


def _class_errors(context: MetricContext) -> list[float | None]:
    counts = context.once(confusion_of)
    right, examples = counts.diagonal().tolist(), counts.sum(1).tolist()
    return [(n - hits) / n if n else None for hits, n in zip(right, examples, strict=True)]


def _confusions(context: MetricContext) -> list[list[Any]]:
    counts, names = context.once(confusion_of), context.data.class_names
    wrong = counts - counts.diagonal().diag()
    found = [[names[label], names[predicted], int(wrong[label, predicted])] for label, predicted in wrong.nonzero().tolist()]
    return sorted(found, key=lambda row: -row[2])


METRICS = (
    Metric("test.class_examples", "list", "test examples of each class", lambda context: context.once(confusion_of).sum(1)),
    Metric(
        "test.class_errors", "list", "test error of each class, fractions; null for a class without test examples", _class_errors
    ),
    Metric(
        "test.confusions",
        "list",
        "misclassified test examples: class, predicted class, number; the most frequent confusion first",
        _confusions,
    ),
    Metric(
        "test.confusion_matrix",
        "list",
        "numbers of test examples: a row per class, a column per predicted class",
        lambda context: context.once(confusion_of),
        needs=("few_classes",),
    ),
)
