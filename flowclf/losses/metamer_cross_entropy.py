"""Metamers that the readout classifies as their logits say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import Fraction
from flowclf.classifier import Encoding, require_invertible
from flowclf.graph import readout_of
from flowclf.losses.base import Binding, Loss, LossTerms, warmed_up
from flowclf.modes import fixed


class MetamerCrossEntropy(Loss):
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

    invertible_only = True

    def __init__(self, *, share: Fraction = 0.5, samples: Fraction = 0.0, delay: Fraction = 0.0, warmup: Fraction = 0.0) -> None:
        super().__init__()
        self.share, self.samples, self.delay, self.warmup = share, samples, delay, warmup

    @property
    def logits_only(self) -> bool:  # type: ignore[override]
        """Whether the term has no weight yet."""
        return not warmed_up(self.progress, self.delay, self.warmup)

    @property
    def settled(self) -> bool:
        """Whether the term has its full weight."""
        return warmed_up(self.progress, self.delay, self.warmup) >= 1

    def build(self, binding: Binding) -> None:
        """Raise UsageError if the graph has no readout."""
        readout_of(require_invertible(binding.classifier, type(self).__name__).graph)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Part, after the delay: ``metamer_cross_entropy_nats``."""
        grown = warmed_up(self.progress, self.delay, self.warmup)
        if not grown:
            return LossTerms(0.0 * encoding.logits.sum(), {})
        classifier = require_invertible(self.binding.classifier, type(self).__name__)
        count = max(min(2, len(labels)), round(self.share * len(labels)))
        logits = encoding.logits[:count].detach()
        # Batches are in random order: the next sample is as good a donor as any.
        nuisance = encoding.nuisance.roll(-1, 0)[:count]
        drawn = round(self.samples * count)
        if drawn:
            of_prior = self.binding.prior.sample(labels[:drawn])[1].detach()
            nuisance = torch.cat((of_prior, nuisance[drawn:]))
        with fixed(readout_of(classifier.graph).module):
            _, reading = classifier.invert_to_readout(logits, nuisance)
        value = functional.cross_entropy(reading, labels[:count])
        return LossTerms(grown * value, {"metamer_cross_entropy_nats": value.detach()})
