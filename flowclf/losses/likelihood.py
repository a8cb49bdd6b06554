"""Maximum likelihood under the classifier's factorial prior."""

from __future__ import annotations

from torch import Tensor

from flowclf.classifier import Encoding
from flowclf.losses.base import Binding, Loss, LossTerms


def code_length(binding: Binding, encoding: Encoding, labels: Tensor) -> Tensor:
    """-log2 p(x | y) per dimension of the data, mean over the batch, bits."""
    log_prob = binding.prior.log_prob(encoding.logits, encoding.nuisance, labels) + encoding.log_det
    return binding.preprocessing.bits_per_dim(log_prob).mean()


class FactorialPriorMLE(Loss):
    """-log2 p(x | y) per dimension of the data, under the factorial prior with learned nuisance means and scales (Lemma 10).

    p(x | y) = N(z_s; m e_y, m I) prod_k N(z_n,k; mu_k, sigma_k^2) |det dF/dx|. It contains the cross-entropy: log p(x | y) +
    log pi_y = log p(x) + log p(y | x). Bits per dimension, at the depth of the preprocessing, compare between image sizes, with or
    without padding.

    Example:
        >>> from flowclf.classifier import build_classifier
        >>> clf = build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=10)
        >>> loss = FactorialPriorMLE().bind(clf)
    """

    invertible_only = True

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Part: ``bits_per_dim``."""
        value = code_length(self.binding, encoding, labels)
        return LossTerms(value, {"bits_per_dim": value.detach()})
