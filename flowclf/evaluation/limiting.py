"""Evaluation on a part of the data, chosen alike for every model."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from flowclf.data import DataSet, Split
from flowclf.data.seeding import generator
from flowclf.errors import UsageError


def limited(data: DataSet, limit: int | None) -> DataSet:
    """The same data with ``limit`` test examples and the same fraction of the training and validation examples.

    Each class keeps its share, to within one example. The choice depends on the data alone, not on a model or its seed, so that
    limited evaluations of several models use the same test examples.

    Args:
        data: the data.
        limit: number of test examples; None, or at least as many as there are, leaves the data as they are.

    Raises:
        UsageError: if the limit is not an integer of at least 1.

    Example:
        >>> def part(n):
        ...     return Split(torch.zeros(n, 4), torch.arange(n) % 2)
        >>> limited(DataSet("zeros", ("a", "b"), part(60), part(20), part(30)), 10)
        DataSet('zeros': 20 train, 7 validation, 10 test, (4,), 2 classes, batch 128, cpu)
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UsageError(f"limit: expected an integer of at least 1, or None for no limit; found {limit!r}")
    total = len(data.test)
    if limit is None or limit >= total:
        return data

    def part(split: Split, least: int) -> Split:
        count = min(len(split), max(least, -(-len(split) * limit // total)))
        return split.take(stratified(split.labels, count))

    # A data set has at least two training examples, or none.
    train, validation, test = part(data.train, 2), part(data.validation, 1), part(data.test, 1)
    return dataclasses.replace(data, train=train, validation=validation, test=test)


def stratified(labels: Tensor, n: int) -> Tensor:
    """Indices (n,), in ascending order, of a random choice among labels (N,) that keeps the classes' shares; n is at most N."""
    order = torch.randperm(len(labels), generator=generator(0, "limit"))
    by_class = order[labels.cpu()[order].argsort(stable=True)]
    # Equal steps through the classes in turn: even with fewer examples than classes, the classes are spread over all.
    places = (2 * torch.arange(n) + 1) * len(labels) // (2 * max(n, 1))
    return by_class[places].sort().values
