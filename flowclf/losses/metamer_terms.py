"""The base of losses on metamers at a readout."""

from __future__ import annotations

from torch import Tensor

from flowclf.classifier import Encoding, InvertibleClassifier, require_invertible
from flowclf.errors import UsageError
from flowclf.graph import readout_of
from flowclf.losses.base import Binding, Loss, LossTerms, warmed_up


class MetamerTerm(Loss):
    """A term that inverts the nodes after the ``logit_readout`` for a share of each batch; a subclass implements :meth:`term`.

    Args:
        share: fraction of the batch, at least two samples, that gets metamers.
        delay: fraction of the training before the term's weight leaves 0.
        warmup: fraction of the training over which it then grows to its value.

    Raises:
        UsageError: if, at binding, the classifier is a plain network, or its graph has no ``logit_readout``.
    """

    invertible_only = True

    def __init__(self, share: float, delay: float, warmup: float) -> None:
        super().__init__()
        self.share, self.delay, self.warmup = share, delay, warmup

    @property
    def _grown(self) -> float:
        return warmed_up(self.progress, self.delay, self.warmup)

    @property
    def logits_only(self) -> bool:  # type: ignore[override]
        """Whether the term has no weight yet."""
        return not self._grown

    @property
    def settled(self) -> bool:
        """Whether the term's weight has grown to its value."""
        return self._grown >= 1

    @property
    def classifier(self) -> InvertibleClassifier:
        """The classifier that the loss is bound to."""
        return require_invertible(self.binding.classifier, type(self).__name__)

    def build(self, binding: Binding) -> None:
        """Raise UsageError if the graph has no readout."""
        readout_of(require_invertible(binding.classifier, type(self).__name__).graph)

    def forward(self, encoding: Encoding, labels: Tensor) -> LossTerms:
        """The parts of :meth:`term` after the delay; before it none.

        Raises:
            UsageError: if the batch has a single sample, which has no other as a donor.
        """
        if len(labels) < 2:
            raise UsageError(f"{type(self).__name__}: expected batches of at least 2 samples, found {len(labels)}")
        if not self._grown:
            return LossTerms(0.0 * encoding.logits.sum(), {})
        total, parts = self.term(encoding, labels, max(2, round(self.share * len(labels))))
        return LossTerms(self._grown * total, {name: value.detach() for name, value in parts.items()})

    def term(self, encoding: Encoding, labels: Tensor, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The term at its full weight, from ``count`` metamers, and its parts by name."""
        raise NotImplementedError(f"{type(self).__name__} does not implement term")
