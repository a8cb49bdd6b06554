"""Metamers matched to data at a readout: the inverse of the nodes after it has to map both to similar latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import Fraction, NonNegativeFloat
from flowclf.classifier import Encoding, require_invertible
from flowclf.graph import readout_of
from flowclf.losses.base import Binding, Loss, LossTerms, warmed_up

_LEAST_VARIANCE = 1e-4
"""Added to variances, which are about 1 for latents, but may vanish for pixels that are the same in all images."""


class MetamerMatching(Loss):
    r"""Distance between metamers and data at a readout, by its readings and by means and variances of its inputs, nats.

    A metamer has the logits of x_i and the nuisances of another sample x_j (paper, section 2.2). A ``logit_readout`` adds to the
    logits what it reads in the nuisances, and the nodes after it remove from the nuisances what the logits say already. Their
    inverse has to restore it in a metamer, for the class of the logits and not for that of the donor x_j. Where this fails, the
    metamer's latents u_ij at the input of the readout are those of no image, and the inverse of the nodes before it turns them into
    stripes and chequers. Two terms make these latents resemble those of data:

    - the readings agree with those of u_ii, the latents of x_i: the mean over pairs of \sum_k s(r_k(u_ij) - r_k(u_ii)), where s(d)
      is d^2 / 2 up to 1 nat and |d| - 1/2 beyond;
    - the latents are spread as those of data: the mean over dimensions of KL(N(m', v') || N(m, v)), where m' and v' are mean and
      variance of a dimension of u_ij over the pairs, m and v those of u_ii.

    Only the nodes after the readout are inverted. No gradient reaches the logits, or anything that depends on x_i alone. It reaches
    the readout, the nodes after it, and the donor's nuisances, which therefore lose what restores the donor's class.

    Args:
        reading_weight: factor of the readings' distance.
        moment_weight: factor of the divergence of means and variances.
        share: fraction of the batch that is matched, at least two samples, each with the nuisances of another.
        delay: fraction of the training before the terms' weights leave 0.
        warmup: fraction of the training over which they then grow to their values.

    Raises:
        UsageError: when bound, if the classifier is a plain network, or its graph has no ``logit_readout``.

    Example:
        >>> import torch
        >>> from flowclf.classifier import build_classifier
        >>> clf = build_classifier((1, 8, 8), ["squeeze", "squeeze", "logit_readout", "logit_coupling", "split_head"], classes=10)
        >>> loss = MetamerMatching().bind(clf)
        >>> sorted(loss(clf(clf.preprocessing(torch.rand(4, 1, 8, 8))), torch.tensor([1, 2, 3, 4])).parts)
        ['moment_divergence_nats', 'reading_distance_nats']
    """

    invertible_only = True

    def __init__(
        self,
        *,
        reading_weight: NonNegativeFloat = 1.0,
        moment_weight: NonNegativeFloat = 10.0,
        share: Fraction = 0.5,
        delay: Fraction = 0.0,
        warmup: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.reading_weight = reading_weight
        self.moment_weight = moment_weight
        self.share = share
        self.delay = delay
        self.warmup = warmup

    def build(self, binding: Binding) -> None:
        """Check that there is a readout.

        Raises:
            UsageError: if there is none.
        """
        readout_of(require_invertible(binding.classifier, type(self).__name__).graph)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Parts, after the delay: ``reading_distance_nats``, ``moment_divergence_nats``."""
        grown = warmed_up(self.progress, self.delay, self.warmup)
        if not grown:
            return LossTerms(0.0 * encoding.logits.sum(), {})
        count = max(min(2, len(labels)), round(self.share * len(labels)))
        # Batches are in random order: the next sample is as good a donor as any.
        logits, own = (values.detach().roll(1, 0)[:count] for values in (encoding.logits, encoding.nuisance))
        classifier = require_invertible(self.binding.classifier, type(self).__name__)
        with torch.no_grad():
            data, expected = classifier.invert_to_readout(logits, own)
        latents, readings = classifier.invert_to_readout(logits, encoding.nuisance[:count])
        distance = functional.smooth_l1_loss(readings, expected, reduction="none").sum(1).mean()
        divergence = _divergence(latents.flatten(1), data.flatten(1))
        total = grown * (self.reading_weight * distance + self.moment_weight * divergence)
        return LossTerms(total, {"reading_distance_nats": distance.detach(), "moment_divergence_nats": divergence.detach()})


def _divergence(latents: Tensor, data: Tensor) -> Tensor:
    """KL(N(m', v') || N(m, v)), mean over dimensions: m' and v' are the moments of latents (B, D), m and v those of data (B, D)."""
    (own_variance, own_mean), (variance, mean) = (torch.var_mean(values, 0, correction=0) for values in (latents, data))
    variance = variance + _LEAST_VARIANCE
    ratio = (own_variance + _LEAST_VARIANCE) / variance
    return 0.5 * (ratio - 1 - ratio.log() + (own_mean - mean).square() / variance).mean()
