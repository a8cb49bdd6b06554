"""Metamers matched to data at a readout: run backwards, the nodes after it have to make of metamers what they make of data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import Fraction, NonNegativeFloat
from flowclf.classifier import Encoding, require_invertible
from flowclf.graph import readout_of
from flowclf.losses.base import Binding, Loss, LossTerms, warmed_up

__all__ = ["MetamerMatching"]

_LEAST_VARIANCE = 1e-4
"""Added to variances: latents have one of about 1, pixels that are the same in all images much less."""


class MetamerMatching(Loss):
    r"""How far metamers lie from data where a readout looks at them, by its readings and by means and variances, nats.

    A metamer has the logits of x_i and the nuisances of another sample x_j (paper, section 2.2). A ``logit_readout`` adds to the
    logits what it finds in the nuisances, and the nodes after it take from the nuisances what the logits tell already. Run
    backwards on a metamer, they have to put it back, of the logits' class and not of the donor's. Where they fail, the metamer's
    latents u_ij behind the readout are those of no image, and the nodes before it turn them into stripes and chequers. Two terms
    ask for latents as data have them:

    - in which the readout finds what it finds in u_ii, the latents of x_i: the mean over pairs of \sum_k s(r_k(u_ij) - r_k(u_ii)),
      where s(d) is d^2 / 2 up to 1 nat and |d| - 1/2 beyond;
    - latents as widely spread as those of data: the mean over dimensions of KL(N(m', v') || N(m, v)), where m' and v' are mean and
      variance of a dimension of u_ij over the pairs, m and v those of u_ii.

    Only the nodes after the readout are inverted. Logits and what is of x_i alone are taken as given: no gradient reaches them from
    here. It does reach the readout, the nodes after it, and the donor's nuisances, which so lose what brings its class back.

    Args:
        reading_weight: factor of the readings' distance.
        moment_weight: factor of the divergence of means and variances.
        share: the part of the batch that is matched, at least two samples, each with the nuisances of another.
        delay: share of the training before the terms' weights leave 0.
        warmup: share of the training over which they then grow to what is given.

    Raises:
        UsageError: a plain network, or a graph without a ``logit_readout``.

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
        """Look for the readout.

        Raises:
            UsageError: there is none.
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
