"""Information about the class, in nats, from a probe's cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy_nats(labels: Tensor) -> float:
    """H(y) of the classes' frequencies among labels (N,), nats.

    Example:
        >>> round(entropy_nats(torch.tensor([0, 1, 2, 3])), 4)
        1.3863
    """
    counts = torch.bincount(labels.cpu()).double()
    shares = counts[counts > 0] / counts.sum()
    return -(shares * shares.log()).sum().item() + 0.0


def mutual_information_nats(labels: Tensor, cross_entropy: float) -> float:
    """Lower bound on I(y; z_n), nats: H(y) - CE(probe), both on the same data (paper, Lemma 9).

    Negative if the probe does worse than the classes' frequencies; it is reported as it is.

    Args:
        labels: (N,) of the data on which the cross-entropy was measured.
        cross_entropy: of the probe, nats.
    """
    return entropy_nats(labels) - cross_entropy
