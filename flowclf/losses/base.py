"""The base of every loss: bound to a classifier once, called on encodings, with terms by name; losses add and scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from flowclf.classifier import Classifier, Encoding, InvertibleClassifier, require_invertible
from flowclf.errors import UsageError
from flowclf.labels import class_numbers
from flowclf.losses.class_weights import WeightedCrossEntropy
from flowclf.preprocessing import Preprocessing
from flowclf.priors import Prior


class LossTerms(NamedTuple):
    """A loss on one batch: the total, a scalar with gradient, and its unweighted terms by names that end with their units."""

    total: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Binding:
    """What a loss uses of the classifier it is bound to; the classifier's parameters are not the loss's."""

    classifier: Classifier

    @property
    def classes(self) -> int:
        """K."""
        return self.classifier.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """The classifier's preprocessing, which has the dimensions of the data."""
        return self.classifier.preprocessing

    @property
    def nuisances(self) -> int:
        """D - K; 0 for a plain network."""
        return self.classifier.dimensions - self.classes if isinstance(self.classifier, InvertibleClassifier) else 0

    @property
    def prior(self) -> Prior:
        """The classifier's prior; raises UsageError if the classifier is a plain network, which has none."""
        return require_invertible(self.classifier, "a loss with a likelihood or nuisances").prior


class Loss(nn.Module):
    """Base class. A subclass implements :meth:`forward`, and :meth:`build` if it has parameters.

    A loss with an adversary derives from :class:`AdversarialLoss`.

    Attributes:
        progress: fraction of the training that is done; the training loop sets it before each step.
        invertible_only: whether the loss needs nuisances or a likelihood, which a plain network does not have.
        logits_only: whether the loss uses the logits alone, now; a training then runs no node that only transforms nuisances, and
            the encodings have no nuisances, (B, 0).

    Example:
        >>> class Margin(Loss):
        ...     def forward(self, encoding, labels):
        ...         true = encoding.logits.gather(1, labels[:, None])
        ...         value = torch.relu(1 + encoding.logits - true).mean()
        ...         return LossTerms(value, {"margin": value.detach()})
    """

    progress: float = 1.0
    invertible_only: bool = False
    logits_only: bool = False
    _binding: Binding | None = None

    def bind(self, classifier: Classifier) -> Self:
        """Bind the loss to the classifier that it will train, with its dimensions and prior; returns the loss itself.

        Raises:
            UsageError: if the loss is bound already, or needs an inverse that the classifier does not have.
        """
        if self._binding is not None:
            raise UsageError(f"{type(self).__name__} is bound to a classifier already; make a new one")
        if self.invertible_only:
            require_invertible(classifier, type(self).__name__)
        self._binding = Binding(classifier)
        self.build(self._binding)
        self.to(classifier.device, classifier.dtype)
        return self

    @property
    def binding(self) -> Binding:
        """What :meth:`bind` keeps of the classifier; raises UsageError if the loss is not bound."""
        if self._binding is None:
            raise UsageError(f"{type(self).__name__} is not bound: call loss.bind(classifier) first")
        return self._binding

    def set_progress(self, progress: float) -> None:
        """Set the fraction of the training that is done, for warm-ups."""
        self.progress = progress

    def build(self, binding: Binding) -> None:
        """Make the loss's own parameters; called once, when the dimensions are known."""

    @property
    def settled(self) -> bool:
        """Whether every term has its full weight now, so that validation scores of later epochs can be compared with this one's."""
        return True

    def set_class_counts(self, counts: Tensor) -> None:
        """Take the numbers of training examples of the classes, (K,), for class weights; the trainer calls it.

        Raises:
            UsageError: if there are class weights for another number of classes, or a class to be balanced has no examples.
        """
        for weighted in self._weighted():
            weighted.set_class_counts(counts)

    def class_weights(self) -> str | None:
        """The class weights as a text for the record of a run; None if the classes count the same."""
        return "; ".join(filter(None, (weighted.describe() for weighted in self._weighted()))) or None

    def _weighted(self) -> list[WeightedCrossEntropy]:
        return [module for module in self.modules() if isinstance(module, WeightedCrossEntropy)]

    def __call__(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """The loss of a batch, after a check of the labels.

        Raises:
            UsageError: if the labels are not B integers, or, where that can be seen without waiting for a GPU, out of range.
        """
        if isinstance(encoding, Encoding):
            classes = encoding.logits.shape[1] if encoding.logits.dim() == 2 else None
            labels = class_numbers(labels, classes, len(encoding.logits), sync=False)
        return super().__call__(encoding, labels)  # type: ignore[no-any-return]

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """The loss of a batch: an encoding of B samples and their labels (B,)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that are trained along with the classifier."""
        return self.parameters()

    def __add__(self, other: Loss) -> WeightedSum:
        return weighted_sum([*_terms(self), *_terms(other)])

    def __mul__(self, weight: float) -> WeightedSum:
        return weighted_sum([(float(weight) * own, loss) for own, loss in _terms(self)])

    __rmul__ = __mul__


class AdversarialLoss(Loss):
    """A loss that owns an adversary: networks that are trained on each batch before the classifier is.

    A subclass implements :meth:`adversary_loss` and :meth:`adversary_parameters`; the training loop uses nothing else of it.

    Attributes:
        adversary_loss_name: name of :meth:`adversary_loss` in the metrics of an epoch, which have its mean in training and its
            value on validation data; of a part of the loss, if that is the same quantity. It ends with its unit, and with
            ``cross_entropy_nats`` if it is a cross-entropy.

    Example:
        >>> class Hide(AdversarialLoss):
        ...     def build(self, binding):
        ...         self.critic = nn.Linear(binding.nuisances, binding.classes)
        ...     def adversary_parameters(self):
        ...         return self.critic.parameters()
        ...     def adversary_loss(self, encoding, labels):
        ...         return nn.functional.cross_entropy(self.critic(encoding.nuisance), labels)
        ...     def forward(self, encoding, labels):
        ...         value = self.adversary_loss(encoding, labels)
        ...         return LossTerms(-value, {"critic_nats": value.detach()})
        >>> from flowclf.classifier import build_classifier
        >>> loss = Hide().bind(build_classifier((4,), ["actnorm", "split_head"], classes=2))
        >>> loss.adversary_steps, len(list(loss.main_parameters())), len(list(loss.adversary_parameters()))
        (1, 0, 2)
    """

    adversary_loss_name: str = "adversary_loss"

    @property
    def adversary_steps(self) -> int:
        """Steps of the adversary on a batch now, before the classifier's own; may depend on ``progress``."""
        return 1

    def adversary_loss(self, encoding: Encoding, labels: Tensor) -> Tensor:
        """What the adversary minimises, a scalar; the encoding comes without gradient."""
        raise NotImplementedError(f"{type(self).__name__} does not implement adversary_loss")

    def adversary_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the adversary."""
        raise NotImplementedError(f"{type(self).__name__} does not implement adversary_parameters")

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that are trained along with the classifier: all but the adversary's."""
        adversary = {id(parameter) for parameter in self.adversary_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in adversary)

    def adversary_optimizer(self) -> torch.optim.Optimizer:
        """An optimiser for the adversary."""
        return torch.optim.Adam(list(self.adversary_parameters()), lr=1e-3, betas=(0.5, 0.999))


def warmed_up(progress: float, delay: float, warmup: float) -> float:
    """Factor of a term: 0 for the fraction ``delay`` of the training, then growing to 1 over ``warmup``, 0 for a jump."""
    since = progress - delay
    return min(1.0, max(0.0, since / warmup)) if warmup else float(since >= 0)


def _terms(loss: Loss) -> list[tuple[float, Loss]]:
    if isinstance(loss, WeightedSum):
        return loss.terms
    if not isinstance(loss, Loss):
        raise UsageError(f"a loss adds to a loss, found {type(loss).__name__}")
    return [(1.0, loss)]


def weighted_sum(terms: Sequence[tuple[float, Loss]]) -> WeightedSum:
    """A sum of losses with weights, as ``+`` and ``*`` make it.

    Raises:
        UsageError: if more than one of the losses has an adversary.

    Example:
        >>> from flowclf.losses import CrossEntropy, FactorialPriorMLE
        >>> weighted_sum([(1.0, CrossEntropy()), (0.5, FactorialPriorMLE())]).weights
        [1.0, 0.5]
    """
    adversarial = [type(loss).__name__ for _, loss in terms if isinstance(loss, AdversarialLoss)]
    if len(adversarial) > 1:
        raise UsageError(f"at most one loss of a sum can have an adversary, found {', '.join(adversarial)}")
    return (AdversarialSum if adversarial else WeightedSum)(terms)


class WeightedSum(Loss):
    """A sum of losses with weights, made by ``+`` and ``*`` or :func:`weighted_sum`.

    Parts of the same name are numbered, in the order of the losses that report one in that step.
    """

    def __init__(self, terms: Sequence[tuple[float, Loss]]) -> None:
        super().__init__()
        self.weights = [weight for weight, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    @property
    def logits_only(self) -> bool:  # type: ignore[override]
        """Whether every loss of the sum uses the logits alone."""
        return all(loss.logits_only for _, loss in self.terms)

    @property
    def terms(self) -> list[tuple[float, Loss]]:
        """Weights and losses."""
        return list(zip(self.weights, self.losses, strict=True))  # type: ignore[arg-type]

    def set_progress(self, progress: float) -> None:
        """Set the progress of every loss of the sum."""
        super().set_progress(progress)
        for _, loss in self.terms:
            loss.set_progress(progress)

    @property
    def settled(self) -> bool:
        """Whether every loss of the sum is settled."""
        return all(loss.settled for _, loss in self.terms)

    def bind(self, classifier: Classifier) -> Self:
        """Bind every loss of the sum."""
        for _, loss in self.terms:
            loss.bind(classifier)
        return super().bind(classifier)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """Weighted sum of the totals; the parts of all."""
        total: Tensor = encoding.logits.new_zeros(())
        parts: dict[str, Tensor] = {}
        for weight, loss in self.terms:
            terms = loss(encoding, labels)
            total = total + weight * terms.total
            for name, value in terms.parts.items():
                number = next(n for n in range(1, len(parts) + 2) if (name if n == 1 else f"{name}_{n}") not in parts)
                parts[name if number == 1 else f"{name}_{number}"] = value
        return LossTerms(total, parts)


class AdversarialSum(WeightedSum, AdversarialLoss):
    """A sum in which one loss has an adversary; that loss supplies the adversary."""

    @property
    def _adversarial(self) -> AdversarialLoss:
        return next(loss for loss in self.losses if isinstance(loss, AdversarialLoss))

    @property
    def adversary_loss_name(self) -> str:  # type: ignore[override]
        """Name of the adversarial term's."""
        return self._adversarial.adversary_loss_name

    @property
    def adversary_steps(self) -> int:
        """Steps of the adversarial term."""
        return self._adversarial.adversary_steps

    def adversary_loss(self, encoding: Encoding, labels: Tensor) -> Tensor:
        """Loss of the adversarial term."""
        return self._adversarial.adversary_loss(encoding, labels)

    def adversary_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the adversarial term."""
        return self._adversarial.adversary_parameters()

    def adversary_optimizer(self) -> torch.optim.Optimizer:
        """Optimiser of the adversarial term."""
        return self._adversarial.adversary_optimizer()
