"""Independence cross-entropy: nuisances that say nothing of the class (paper, Definition 7)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.architectures.nuisance_classifiers import ConvolutionalProbe, mlp
from flowclf.arguments import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from flowclf.classifier import Encoding, require_invertible
from flowclf.errors import UsageError
from flowclf.losses.base import AdversarialLoss, Binding, LossTerms, warmed_up
from flowclf.losses.likelihood import code_length

__all__ = ["IndependenceCrossEntropy", "NuisanceClassifier"]


class NuisanceClassifier(nn.Module):
    """D_nc: a network on standardised nuisances (B, D-K) -> logits (B, K).

    Standardisation is by the batch: without it the adversary lags behind the scales, which the classifier can move freely.

    Args:
        nuisances: D-K.
        network: of standardised nuisances.
    """

    def __init__(self, nuisances: int, network: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(nuisances, affine=False), network)

    def forward(self, nuisance: Tensor) -> Tensor:
        """Logits, (B, K)."""
        return self.layers(nuisance)  # type: ignore[no-any-return]


class IndependenceCrossEntropy(AdversarialLoss):
    r"""min over F, max over D_nc:  a CE(y, z_s) + w N(z_n) + b (-log2 p(x | y)) / D  (paper, Definition 7).

    The nuisance classifier D_nc is trained on CE(y, D_nc(z_n)), ``nuisance_steps`` times a batch, and the bijection to leave it
    nothing. The paper's N = -CE(y, D_nc(z_n)) is unbounded below for a fixed D_nc; ``uniform`` replaces it by the divergence of
    D_nc's answer from knowing nothing, CE(1/K, D_nc(z_n)) - log K >= 0, which has the same solution and a floor. The likelihood
    is that of :class:`FactorialPriorMLE`, in bits per dimension of the data: on the logits too, whose volume the paper's own
    term leaves unbounded.

    Args:
        classification_weight: a.
        nuisance_weight: w.
        nuisance_steps: steps of the nuisance classifier on each batch.
        nuisance_network: what D_nc is: ``mlp``, fully connected; ``conv``, convolutional, on the nuisances as feature maps; or
            ``both``, two players whose cross-entropies are averaged.
        nuisance_hidden: units of the hidden layers of ``mlp``.
        nuisance_learning_rate: of its Adam, betas (0.5, 0.999).
        nuisance_target: ``uniform``, or ``labels`` for the paper's negated cross-entropy.
        nuisance_delay: share of the training before w leaves 0, in which the nuisance classifier rests.
        nuisance_warmup: share of the training over which w then grows to its value.
        likelihood_weight: b.

    Example:
        >>> from flowclf.classifier import build_classifier
        >>> clf = build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=10)
        >>> loss = IndependenceCrossEntropy(nuisance_weight=2.0, nuisance_hidden=[64]).bind(clf)
        >>> sorted(loss(clf(clf.preprocessing(torch.rand(4, 1, 8, 8))), torch.tensor([1, 2, 3, 4])).parts)
        ['bits_per_dim', 'cross_entropy_nats', 'nuisance_cross_entropy_nats']
    """

    invertible_only = True

    def __init__(
        self,
        *,
        classification_weight: NonNegativeFloat = 1.0,
        nuisance_weight: NonNegativeFloat = 1.0,
        nuisance_steps: PositiveInt = 3,
        nuisance_network: Literal["mlp", "conv", "both"] = "mlp",
        nuisance_hidden: Sequence[PositiveInt] = (512, 512),
        nuisance_learning_rate: PositiveFloat = 1e-3,
        nuisance_target: Literal["uniform", "labels"] = "uniform",
        nuisance_delay: Fraction = 0.0,
        nuisance_warmup: Fraction = 0.15,
        likelihood_weight: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__()
        if nuisance_target not in ("uniform", "labels"):
            raise UsageError(f"nuisance_target must be 'uniform' or 'labels', found {nuisance_target!r}")
        if nuisance_network not in ("mlp", "conv", "both"):
            raise UsageError(f"nuisance_network must be 'mlp', 'conv' or 'both', found {nuisance_network!r}")
        self.classification_weight = classification_weight
        self.nuisance_weight = nuisance_weight
        self.nuisance_steps = nuisance_steps
        self.nuisance_network = nuisance_network
        self.nuisance_hidden = tuple(nuisance_hidden)
        self.nuisance_learning_rate = nuisance_learning_rate
        self.nuisance_target = nuisance_target
        self.nuisance_delay = nuisance_delay
        self.nuisance_warmup = nuisance_warmup
        self.likelihood_weight = likelihood_weight

    @property
    def adversary_steps(self) -> int:
        """None before w leaves 0, nor where its value is 0."""
        return self.nuisance_steps if self.nuisance_weight and self.progress >= self.nuisance_delay else 0

    def build(self, binding: Binding) -> None:
        """Make the nuisance classifier, or both.

        Raises:
            UsageError: a convolutional one, but nuisances that are not feature maps.
        """
        networks: list[nn.Module] = []
        if self.nuisance_network != "conv":
            networks.append(mlp(binding.nuisances, binding.classes, self.nuisance_hidden))
        if self.nuisance_network != "mlp":
            networks.append(ConvolutionalProbe(require_invertible(binding.classifier, type(self).__name__), binding.classes))
        self.adversaries = nn.ModuleList(NuisanceClassifier(binding.nuisances, network) for network in networks)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Parts: ``cross_entropy_nats``, ``nuisance_cross_entropy_nats`` (of D_nc, against the labels), ``bits_per_dim``."""
        binding = self.binding
        bits = code_length(binding, encoding, labels)
        cross_entropy = functional.cross_entropy(encoding.logits, labels)
        with _frozen(self.adversaries):
            log_probs = torch.stack([player(encoding.nuisance).log_softmax(1) for player in self.adversaries])
        of_labels = -log_probs.gather(2, labels[None, :, None].expand(len(log_probs), -1, 1)).mean()
        divergence = -log_probs.mean() - math.log(binding.classes)
        nuisance = divergence if self.nuisance_target == "uniform" else -of_labels
        grown = warmed_up(self.progress, self.nuisance_delay, self.nuisance_warmup)
        total = self.classification_weight * cross_entropy + self.likelihood_weight * bits
        if grown:
            total = total + grown * self.nuisance_weight * nuisance
        parts = {
            "cross_entropy_nats": cross_entropy.detach(),
            "nuisance_cross_entropy_nats": of_labels.detach(),
            "bits_per_dim": bits.detach(),
        }
        return LossTerms(total, parts)

    def adversary_loss(self, encoding: Encoding, labels: Tensor) -> Tensor:
        """CE(y, D_nc(z_n)), nats."""
        each = [functional.cross_entropy(player(encoding.nuisance), labels) for player in self.adversaries]
        return torch.stack(each).mean()

    def adversary_parameters(self) -> Iterator[nn.Parameter]:
        """Those of D_nc."""
        return self.adversaries.parameters()

    def adversary_optimizer(self) -> torch.optim.Optimizer:
        """Adam with betas (0.5, 0.999): a short memory, for a game that moves."""
        parameters = list(self.adversaries.parameters())
        fused = parameters[0].device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, lr=self.nuisance_learning_rate, betas=(0.5, 0.999), fused=fused)


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Within the block a module's parameters take part without getting a gradient."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
