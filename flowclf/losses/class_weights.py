"""Cross-entropy in which the classes count differently, for data of which some classes are rare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.argument_types import PositiveFloat
from flowclf.errors import UsageError

ClassWeights: TypeAlias = Literal["balanced"] | Sequence[PositiveFloat] | None
"""``balanced``: N / (K N_y) for a class with N_y of the N training examples; or K positive factors; or None for equal weights."""


class WeightedCrossEntropy(nn.Module):
    """-w_y log softmax(logits)_y, mean over the batch, nats.

    The mean is over the examples, not over their weights, so that it is an unbiased estimate of the mean over the training set.

    Args:
        class_weights: w, see :data:`ClassWeights`.
        label_smoothing: fraction of the target that is spread over all classes.

    Raises:
        UsageError: if the weights are neither ``balanced`` nor positive numbers.

    Example:
        >>> loss = WeightedCrossEntropy("balanced")
        >>> loss.set_class_counts(torch.tensor([30, 10]))
        >>> [round(weight, 4) for weight in loss.weights.tolist()]
        [0.6667, 2.0]
    """

    weights: Tensor | None

    def __init__(self, class_weights: ClassWeights = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        given = None
        if class_weights is not None and class_weights != "balanced":
            if isinstance(class_weights, str) or not all(0 < weight < float("inf") for weight in class_weights):
                raise UsageError(f"class_weights: expected 'balanced' or a positive number for each class, found {class_weights!r}")
            given = torch.tensor([float(weight) for weight in class_weights])
        # It follows from the arguments and the data, which are the same when a training is resumed.
        self.register_buffer("weights", given, persistent=False)

    def set_class_counts(self, counts: Tensor) -> None:
        """Take the numbers of training examples of the classes, (K,).

        Raises:
            UsageError: if there are weights for another number of classes, or a class to be balanced has no examples.
        """
        if self.class_weights == "balanced":
            if not counts.all():
                missing = ", ".join(map(str, (counts == 0).nonzero().flatten().tolist()))
                raise UsageError(f"class_weights: balanced: expected training examples of every class, found none of {missing}")
            self.weights = (counts.sum() / (len(counts) * counts.double())).float()
        elif self.weights is not None and len(self.weights) != len(counts):
            raise UsageError(f"class_weights: expected {len(counts)} weights, one per class, found {len(self.weights)}")

    def weighted(self, values: Tensor, labels: Tensor) -> Tensor:
        """Values of examples (..., B), each times the weight of its label (B,); the same tensor if classes count the same.

        Raises:
            UsageError: if the weights are to balance the classes, whose numbers of examples are not known.
        """
        weights = self._weights(values)
        return values if weights is None else values * weights[labels]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over logits (B, K) and labels (B,), a scalar; raises as :meth:`weighted`."""
        weights = self._weights(logits)
        if weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        each = functional.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=self.label_smoothing)
        return each.mean()

    def _weights(self, like: Tensor) -> Tensor | None:
        if self.class_weights is not None and self.weights is None:
            raise UsageError(
                "class_weights: balanced needs the number of examples of each class: flowclf.fit and recipes count them, "
                "loss.set_class_counts(counts) sets them"
            )
        return None if self.weights is None else self.weights.to(like)

    def describe(self) -> str | None:
        """The weights as a text for the record of a run; None if the classes count the same."""
        if self.class_weights is None or self.class_weights == "balanced":
            return self.class_weights
        text = ", ".join(f"{weight:g}" for weight in self.class_weights)
        few = len(text) <= 500
        return text if few else f"{len(self.class_weights)} weights from {min(self.class_weights):g} to {max(self.class_weights):g}"
