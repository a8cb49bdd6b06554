"""Metamers that the readout classifies as their logits say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import Fraction
from flowclf.classifier import Encoding
from flowclf.graph import readout_of
from flowclf.losses.metamer_terms import MetamerTerm
from flowclf.modes import fixed


class MetamerCrossEntropy(MetamerTerm):
    """CE(y_i, r(u_ij)): metamers u_ij, with the logits of x_i and the nuisances of x_j, should show the class of x_i.

    The readout r reads everything but the logits, and sees metamers (paper, section 2.2) by the inverse of the nodes after it. That
    inverse has to make an image of the class out of nuisances that came with another, so they cannot carry their own. Gradients
    reach the nodes after the readout and the donor's nuisances; r is fixed, in eval mode, and nothing reaches the logits.

    Args:
        share: fraction of the batch, at least two samples, that gets metamers.
        samples: fraction of the metamers whose nuisances are drawn from the prior instead.
        delay: fraction of the training before the term's weight leaves 0.
        warmup: fraction of the training over which it then grows to its value.

    Raises:
        UsageError: if, at binding, the classifier is a plain network, or its graph has no ``logit_readout``.

    Example:
        >>> from flowclf.classifier import build_classifier
        >>> clf = build_classifier((1, 8, 8), ["squeeze", "squeeze", "logit_readout", "logit_coupling", "split_head"], classes=10)
        >>> loss = MetamerCrossEntropy().bind(clf)
        >>> sorted(loss(clf(clf.preprocessing(torch.rand(4, 1, 8, 8))), torch.tensor([1, 2, 3, 4])).parts)
        ['metamer_cross_entropy_nats']
    """

    def __init__(self, *, share: Fraction = 0.5, samples: Fraction = 0.0, delay: Fraction = 0.0, warmup: Fraction = 0.0) -> None:
        super().__init__(share, delay, warmup)
        self.samples = samples

    def term(self, encoding: Encoding, labels: Tensor, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Part: ``metamer_cross_entropy_nats``."""
        # Batches are in random order: the next sample is as good a donor as any.
        nuisance = encoding.nuisance.roll(-1, 0)[:count]
        if drawn := round(self.samples * count):
            of_prior = self.binding.prior.sample(labels[:drawn])[1].detach()
            nuisance = torch.cat((of_prior, nuisance[drawn:]))
        with fixed(readout_of(self.classifier.graph).module):
            _, reading = self.classifier.invert_to_readout(encoding.logits[:count].detach(), nuisance)
        value = functional.cross_entropy(reading, labels[:count])
        return value, {"metamer_cross_entropy_nats": value}
