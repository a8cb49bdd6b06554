"""A loss."""

from __future__ import annotations

import torch
from torch import Tensor

from flowclf.classifier import Encoding
from flowclf.losses import Loss, LossTerms


class Margin(Loss):
    """Hinge loss on the margin of the true class.

    Args:
        width: of the margin.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        self.width = width

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Mean over the batch and the other classes."""
        true = encoding.logits.gather(1, labels[:, None])
        value = torch.relu(self.width + encoding.logits - true).mean()
        return LossTerms(value, {"margin": value})
