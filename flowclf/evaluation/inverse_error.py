"""How well a classifier inverts, in its own precision: the errors of the two round trips."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flowclf.classifier import InvertibleClassifier
from flowclf.errors import UsageError
from flowclf.modes import evaluating


class InverseError(NamedTuple):
    """Largest and mean absolute difference over all examples and dimensions; the largest is NaN if a value was not finite."""

    max: float
    mean: float


def inverse_error(clf: InvertibleClassifier, x: Tensor, *, batch_size: int = 128) -> InverseError:
    """|F^-1(F(x)) - x| over network inputs x (N, *input_shape), in eval mode and the classifier's own precision.

    Example:
        >>> import flowclf
        >>> clf = flowclf.build_classifier(input_shape=(4,), nodes=["actnorm", "split_head"], classes=2)
        >>> inverse_error(clf, torch.zeros(3, 4)).max < 1e-6
        True

    Raises:
        UsageError: if x is empty.
    """
    with evaluating(clf):
        return _over_batches(x.to(clf.device, clf.dtype), batch_size, lambda batch: clf.inverse(*clf.latents(batch)))


def forward_inverse_error(clf: InvertibleClassifier, logits: Tensor, nuisance: Tensor, *, batch_size: int = 128) -> InverseError:
    """|F(F^-1(z)) - z| over z = (logits (N, K), nuisance (N, D-K)); otherwise as :func:`inverse_error`."""
    z, classes = torch.cat([logits, nuisance], dim=1).to(clf.device, clf.dtype), logits.shape[1]

    def there_and_back(batch: Tensor) -> Tensor:
        return torch.cat(clf.latents(clf.inverse(batch[:, :classes], batch[:, classes:])), dim=1)

    with evaluating(clf):
        return _over_batches(z, batch_size, there_and_back)


def _over_batches(values: Tensor, batch_size: int, round_trip: Callable[[Tensor], Tensor]) -> InverseError:
    if not values.numel():
        raise UsageError(f"expected at least one example to invert, found shape {tuple(values.shape)}")
    worst: list[Tensor] = []
    total = 0.0
    for batch in torch.split(values, batch_size):
        difference = (round_trip(batch) - batch).abs()
        worst.append(difference.max())
        total += difference.double().sum().item()
    return InverseError(torch.stack(worst).max().item(), total / values.numel())
