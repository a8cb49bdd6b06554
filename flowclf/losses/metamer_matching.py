"""Metamers matched to data at a readout: the inverse of the nodes after it should map both to similar latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.argument_types import Fraction, NonNegativeFloat
from flowclf.classifier import Encoding
from flowclf.losses.metamer_terms import MetamerTerm

_LEAST_VARIANCE = 1e-4
"""Added to variances, which are about 1 for latents, but may vanish for pixels that are the same in all images."""


class MetamerMatching(MetamerTerm):
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

    def __init__(
        self,
        *,
        reading_weight: NonNegativeFloat = 1.0,
        moment_weight: NonNegativeFloat = 10.0,
        share: Fraction = 0.5,
        delay: Fraction = 0.0,
        warmup: Fraction = 0.0,
    ) -> None:
        super().__init__(share, delay, warmup)
        self.reading_weight, self.moment_weight = reading_weight, moment_weight

    def term(self, encoding: Encoding, labels: Tensor, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Parts: ``reading_distance_nats``, ``moment_divergence_nats``."""
        # Batches are in random order: the next sample is as good a donor as any.
        logits, own = (values.detach().roll(1, 0)[:count] for values in (encoding.logits, encoding.nuisance))
        with torch.no_grad():
            data, expected = self.classifier.invert_to_readout(logits, own)
        latents, readings = self.classifier.invert_to_readout(logits, encoding.nuisance[:count])
        distance = functional.smooth_l1_loss(readings, expected, reduction="none").sum(1).mean()
        divergence = _divergence(latents.flatten(1), data.flatten(1))
        total = self.reading_weight * distance + self.moment_weight * divergence
        return total, {"reading_distance_nats": distance, "moment_divergence_nats": divergence}


def _divergence(latents: Tensor, data: Tensor) -> Tensor:
    """KL(N(m', v') || N(m, v)), mean over dimensions: m' and v' are the moments of latents (B, D), m and v those of data (B, D)."""
    (own_variance, own_mean), (variance, mean) = (torch.var_mean(values, 0, correction=0) for values in (latents, data))
    variance = variance + _LEAST_VARIANCE
    ratio = (own_variance + _LEAST_VARIANCE) / variance
    return 0.5 * (ratio - 1 - ratio.log() + (own_mean - mean).square() / variance).mean()
