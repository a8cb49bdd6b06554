"""Cross-entropy of the logits: what any classifier is trained with."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import Fraction
from flowclf.classifier import Encoding
from flowclf.losses.base import Loss, LossTerms


class CrossEntropy(Loss):
    """-log softmax(z_s)_y, mean over the batch, nats.

    Args:
        label_smoothing: fraction of the target that is spread over all classes.

    Example:
        >>> import torch
        >>> terms = CrossEntropy()(Encoding(torch.zeros(2, 10), torch.zeros(2, 5), torch.zeros(2)), torch.tensor([3, 7]))
        >>> round(terms.total.item(), 4)
        2.3026
    """

    logits_only = True

    def __init__(self, *, label_smoothing: Fraction = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Part: ``cross_entropy_nats``."""
        value = functional.cross_entropy(encoding.logits, labels, label_smoothing=self.label_smoothing)
        return LossTerms(value, {"cross_entropy_nats": value.detach()})
