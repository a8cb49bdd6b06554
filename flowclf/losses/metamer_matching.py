"""Metamers matched to data at a readout: the inverse of the nodes after it should map both to similar latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import Fraction, NonNegativeFloat
from flowclf.classifier import Encoding, require_invertible
from flowclf.errors import UsageError
from flowclf.graph import readout_of
from flowclf.losses.base import Binding, Loss, LossTerms, warmed_up

_LEAST_VARIANCE = 1e-4
"""Added to variances, which are about 1 for latents, but may vanish for pixels that are the same in all images."""


class MetamerMatching(Loss):
    r"""Distance between metamers and data at a readout, by its readings and by means and variances of its inputs, nats.

    A metamer has the logits of x_i and the nuisances of another sample x_j, the donor (paper, section 2.2). Its latents u_ij at the
    input of the ``logit_readout`` come from the inverse of the nodes after the readout, which has to restore the class of the
    logits, not the donor's. Latents of no image become stripes and checkerboards; two terms make u_ij resemble data's latents u_ii:

    - the readings r agree: the mean over pairs of \sum_k s(r_k(u_ij) - r_k(u_ii)), where s(d) is d^2 / 2 up to 1 nat and |d| - 1/2
      beyond;
    - the moments agree: the mean over dimensions of KL(N(m', v') || N(m, v)), where m' and v' are mean and variance of a dimension
      of u_ij over the pairs, m and v those of u_ii.

    Only the nodes after the readout are inverted. Gradients reach them, the readout, and the donor's nuisances, which therefore
    lose what restores the donor's class; none reaches the logits, or anything that depends on x_i alone.

    Args:
        reading_weight: factor of the readings' distance.
        moment_weight: factor of the divergence of means and variances.
        share: fraction of the batch that is matched, at least two samples, each with the nuisances of another.
        delay: fraction of the training before the terms' weights leave 0.
        warmup: fraction of the training over which they then grow to their values.

    Raises:
        UsageError: if, at binding, the classifier is a plain network, or its graph has no ``logit_readout``.

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
        self.reading_weight, self.moment_weight = reading_weight, moment_weight
        self.share, self.delay, self.warmup = share, delay, warmup

    @property
    def settled(self) -> bool:
        """Whether the terms' weights have grown to their values."""
        return warmed_up(self.progress, self.delay, self.warmup) >= 1

    def build(self, binding: Binding) -> None:
        """Raise UsageError if the graph has no readout."""
        readout_of(require_invertible(binding.classifier, type(self).__name__).graph)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Parts, after the delay: ``reading_distance_nats``, ``moment_divergence_nats``.

        Raises:
            UsageError: if the batch has a single sample, which has no other to be matched with.
        """
        if len(labels) < 2:
            raise UsageError(f"{type(self).__name__}: expected batches of at least 2 samples, found {len(labels)}")
        grown = warmed_up(self.progress, self.delay, self.warmup)
        if not grown:
            return LossTerms(0.0 * encoding.logits.sum(), {})
        count = max(2, round(self.share * len(labels)))
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
