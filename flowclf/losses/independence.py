"""Independence cross-entropy: nuisances that say nothing about the class (paper, Definition 7)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from flowclf.architectures.nuisance_classifiers import ConvolutionalProbe, mlp
from flowclf.argument_types import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from flowclf.classifier import Encoding, require_invertible
from flowclf.component_schema.sections import Section, from_code
from flowclf.losses.base import AdversarialLoss, Binding, LossTerms, warmed_up
from flowclf.losses.class_weights import ClassWeights, WeightedCrossEntropy
from flowclf.losses.likelihood import code_length
from flowclf.modes import frozen


class TermSettings(Section):
    """A term of the loss."""

    weight: NonNegativeFloat = Field(1.0, description="Factor of the term.")


class ClassificationSettings(TermSettings):
    """The term of the classes."""

    class_weights: ClassWeights = Field(
        None,
        description="Weights of the classes in the cross-entropies of the logits and of the nuisance classifier: balanced for the "
        "reciprocal frequencies of the training examples, or a factor for each class; null for equal weights.",
    )


class LikelihoodSettings(TermSettings):
    """The term of the likelihood."""

    delay: Fraction = Field(0.0, description="Fraction of the training before it, in which nodes after the logits do not run.")


class NuisanceSettings(TermSettings):
    """The term of the nuisances, and the nuisance classifier D_nc."""

    steps: PositiveInt = Field(3, description="Training steps of the nuisance classifier per batch.")
    network: Literal["mlp", "conv", "both"] = Field(
        "mlp",
        description="mlp: fully connected; conv: convolutional, on the nuisances as feature maps; both: two adversaries whose "
        "cross-entropies are averaged.",
    )
    hidden: Sequence[PositiveInt] = Field([512, 512], description="Units of the hidden layers of mlp.")
    width: PositiveInt = Field(64, description="Channels of the hidden layers of conv.")
    dropout: Decay = Field(
        0.0,
        description="Fraction of the nuisances and of hidden units that mlp drops in its training, so that it does not memorise; "
        "conv does not drop any.",
    )
    weight_decay: NonNegativeFloat = Field(0.0, description="Decoupled weight decay of its optimiser, as in AdamW.")
    learning_rate: PositiveFloat = Field(1e-3, description="Learning rate of its Adam, betas (0.5, 0.999).")
    target: Literal["uniform", "labels"] = Field("uniform", description="labels: the paper's negated cross-entropy.")
    delay: Fraction = Field(0.0, description="Fraction of the training with weight 0, in which the nuisance classifier rests.")
    warmup: Fraction = Field(0.15, description="Fraction of the training over which the weight then grows to its value.")


_CLASSIFICATION, _NUISANCE, _LIKELIHOOD = ClassificationSettings(), NuisanceSettings(), LikelihoodSettings()


class NuisanceClassifier(nn.Module):
    """D_nc: a network of nuisances (B, ``nuisances``), standardised by the batch, to logits (B, K).

    Without standardisation the adversary lags behind the scales, which the classifier can move freely.
    """

    def __init__(self, nuisances: int, network: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        dropped = [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(nn.BatchNorm1d(nuisances, affine=False), *dropped, network)

    def forward(self, nuisance: Tensor) -> Tensor:
        """Logits, (B, K)."""
        return self.layers(nuisance)  # type: ignore[no-any-return]


class IndependenceCrossEntropy(AdversarialLoss):
    r"""min over F, max over D_nc:  a CE(y, z_s) + w N(z_n) + b (-log2 p(x | y)) / D  (paper, Definition 7).

    The nuisance classifier D_nc is trained on CE(y, D_nc(z_n)), several steps per batch, and the bijection against it. The paper's
    N = -CE(y, D_nc(z_n)) is unbounded below for a fixed D_nc; ``uniform`` replaces it by the divergence of the uniform distribution
    from D_nc's, CE(1/K, D_nc(z_n)) - log K >= 0, which has the same solution. The likelihood is that of :class:`FactorialPriorMLE`,
    in bits per dimension of the data, and includes the logits, whose density the paper's own term leaves unbounded.

    Args:
        classification: a, as ``{"weight": a}``; and the weights of the classes, as in :class:`~flowclf.losses.CrossEntropy`, e.g.
            ``{"weight": a, "class_weights": "balanced"}``. D_nc has them too: ``uniform`` is what it learns from nuisances that say
            nothing of the class only where the classes count as if they were equally frequent.
        nuisance: w and D_nc, as a :class:`NuisanceSettings` or a mapping of its keys.
        likelihood: b, as ``{"weight": b}``.

    Raises:
        UsageError: if a key is unknown or a value is not valid.

    Example:
        >>> from flowclf.classifier import build_classifier
        >>> clf = build_classifier((1, 8, 8), ["squeeze", "split_head"], classes=10)
        >>> loss = IndependenceCrossEntropy(nuisance={"weight": 2.0, "hidden": [64]}).bind(clf)
        >>> sorted(loss(clf(clf.preprocessing(torch.rand(4, 1, 8, 8))), torch.tensor([1, 2, 3, 4])).parts)
        ['bits_per_dim', 'cross_entropy_nats', 'nuisance_cross_entropy_nats']
    """

    invertible_only = True
    adversary_loss_name = "nuisance_cross_entropy_nats"

    def __init__(
        self,
        *,
        classification: ClassificationSettings | Mapping[str, Any] = _CLASSIFICATION,
        nuisance: NuisanceSettings | Mapping[str, Any] = _NUISANCE,
        likelihood: LikelihoodSettings | Mapping[str, Any] = _LIKELIHOOD,
    ) -> None:
        super().__init__()
        self.classification = from_code(ClassificationSettings, classification, "classification")
        self.cross_entropy = WeightedCrossEntropy(self.classification.class_weights)
        self.nuisance = from_code(NuisanceSettings, nuisance, "nuisance")
        self.likelihood = from_code(LikelihoodSettings, likelihood, "likelihood")

    @property
    def adversary_steps(self) -> int:
        """0 until w leaves 0."""
        return self.nuisance.steps if self.nuisance.weight and self.progress >= self.nuisance.delay else 0

    @property
    def settled(self) -> bool:
        """Whether w has grown to its value, and the likelihood counts."""
        whole = not self.nuisance.weight or warmed_up(self.progress, self.nuisance.delay, self.nuisance.warmup) >= 1
        return whole and self.progress >= self.likelihood.delay

    @property
    def logits_only(self) -> bool:  # type: ignore[override]
        """Whether neither the likelihood nor the nuisance classifier plays a part yet."""
        return self.progress < self.likelihood.delay and not self.adversary_steps

    def build(self, binding: Binding) -> None:
        """Make the nuisance classifiers; raises UsageError if one is convolutional and nuisances are not feature maps."""
        self.adversaries = nn.ModuleList()
        if self.nuisance.network != "conv":
            dropout = self.nuisance.dropout
            network = mlp(binding.nuisances, binding.classes, self.nuisance.hidden, dropout)
            self.adversaries.append(NuisanceClassifier(binding.nuisances, network, dropout))
        if self.nuisance.network != "mlp":
            classifier = require_invertible(binding.classifier, type(self).__name__)
            convolutional = ConvolutionalProbe(classifier, binding.classes, self.nuisance.width)
            self.adversaries.append(NuisanceClassifier(binding.nuisances, convolutional))

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Parts: ``cross_entropy_nats``, and after their delays ``nuisance_cross_entropy_nats``, of D_nc, and ``bits_per_dim``."""
        binding, cross_entropy = self.binding, self.cross_entropy(encoding.logits, labels)
        total, parts = self.classification.weight * cross_entropy, {"cross_entropy_nats": cross_entropy}
        if self.adversary_steps:
            nuisance, parts["nuisance_cross_entropy_nats"] = self._nuisance(encoding, labels)
            total = total + warmed_up(self.progress, self.nuisance.delay, self.nuisance.warmup) * self.nuisance.weight * nuisance
        if self.progress >= self.likelihood.delay:
            parts["bits_per_dim"] = code_length(binding, encoding, labels)
            total = total + self.likelihood.weight * parts["bits_per_dim"]
        return LossTerms(total, {name: value.detach() for name, value in parts.items()})

    def _nuisance(self, encoding: Encoding, labels: Tensor) -> tuple[Tensor, Tensor]:
        """N(z_n), and CE(y, D_nc(z_n)), nats."""
        with frozen(self.adversaries):
            log_probs = torch.stack([adversary(encoding.nuisance).log_softmax(1) for adversary in self.adversaries])
        true = log_probs.gather(2, labels[None, :, None].expand(len(log_probs), -1, 1)).squeeze(2)
        of_labels = -self.cross_entropy.weighted(true, labels).mean()
        divergence = -log_probs.mean() - math.log(self.binding.classes)
        return divergence if self.nuisance.target == "uniform" else -of_labels, of_labels

    def adversary_loss(self, encoding: Encoding, labels: Tensor) -> Tensor:
        """CE(y, D_nc(z_n)), nats."""
        each = [self.cross_entropy(adversary(encoding.nuisance), labels) for adversary in self.adversaries]
        return torch.stack(each).mean()

    def adversary_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of D_nc."""
        return self.adversaries.parameters()

    def adversary_optimizer(self) -> torch.optim.Optimizer:
        """Adam with betas (0.5, 0.999): a short memory, for a game that moves."""
        parameters = list(self.adversaries.parameters())
        fused = parameters[0].device.type in ("cpu", "cuda")
        kind = torch.optim.AdamW if self.nuisance.weight_decay else torch.optim.Adam
        decay = self.nuisance.weight_decay
        return kind(parameters, lr=self.nuisance.learning_rate, betas=(0.5, 0.999), weight_decay=decay, fused=fused)
