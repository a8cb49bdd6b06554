"""Cross-entropy of the logits: what any classifier is trained with."""

from __future__ import annotations

from torch import Tensor

from flowclf.argument_types import Fraction
from flowclf.classifier import Encoding
from flowclf.losses.base import Loss, LossTerms
from flowclf.losses.class_weights import ClassWeights, WeightedCrossEntropy


class CrossEntropy(Loss):
    """-log softmax(z_s)_y, mean over the batch, nats; or -w_y log softmax(z_s)_y with weights of the classes.

    Balanced weights train softmax(z_s) to be the posterior under equally frequent classes, as the factorial prior has them.
    Without weights z_s,y takes up the logarithm of the class's frequency.

    Args:
        label_smoothing: fraction of the target that is spread over all classes.
        class_weights: w: ``balanced`` for N / (K N_y), where N_y of the N training examples are of class y; or K positive factors;
            by default all classes count the same.

    Raises:
        UsageError: if the weights are neither ``balanced`` nor positive numbers.

    Example:
        >>> import torch
        >>> terms = CrossEntropy()(Encoding(torch.zeros(2, 10), torch.zeros(2, 5), torch.zeros(2)), torch.tensor([3, 7]))
        >>> round(terms.total.item(), 4)
        2.3026
    """

    logits_only = True

    def __init__(self, *, label_smoothing: Fraction = 0.0, class_weights: ClassWeights = None) -> None:
        super().__init__()
        self.cross_entropy = WeightedCrossEntropy(class_weights, label_smoothing)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Part: ``cross_entropy_nats``."""
        value = self.cross_entropy(encoding.logits, labels)
        return LossTerms(value, {"cross_entropy_nats": value.detach()})
