"""What every classifier is, invertible or not: shapes, preprocessing, names of the classes, logits of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from flowclf.errors import UsageError
from flowclf.graph import NodeRow
from flowclf.preprocessing import Preprocessing

__all__ = ["Classifier", "Encoding", "LogitsOnly", "shape_text"]


class Encoding(NamedTuple):
    """What a classifier makes of a batch.

    Args:
        logits: z_s, (B, K).
        nuisance: z_n, (B, D-K); (B, 0) of a network without an inverse, or where a loss has no use for them.
        log_det: log|det dF/dx|, (B,), nats; zeros for a network that has none.

    Example:
        >>> logits, nuisance, log_det = Encoding(torch.zeros(2, 10), torch.zeros(2, 5), torch.zeros(2))
    """

    logits: Tensor
    nuisance: Tensor
    log_det: Tensor

    def detach(self) -> Encoding:
        """The same without gradients."""
        return Encoding(*(values.detach() for values in self))

    @classmethod
    def of_logits(cls, logits: Tensor) -> Encoding:
        """What is known where nuisances are not: none of them, and log-determinants of 0."""
        return cls(logits, logits.new_zeros(len(logits), 0), logits.new_zeros(len(logits)))


class Classifier(nn.Module):
    """Network inputs to logits: what :class:`InvertibleClassifier` and :class:`PlainClassifier` share.

    Args:
        input_shape: (C, H, W) or (D,) of what the network takes.
        classes: K, at least 2.
        preprocessing: from images in [0, 1] to what the network takes; by default 8-bit images without padding, or the identity
            for vectors.
        class_names: names of the K classes; by default "0" to "K-1".

    Attributes:
        kind: what a checkpoint calls it.

    Raises:
        UsageError: a preprocessing or list of names that does not fit.
    """

    kind: ClassVar[str]

    def __init__(
        self, input_shape: Sequence[int], classes: int, preprocessing: Preprocessing | None, class_names: Sequence[str] | None
    ) -> None:
        super().__init__()
        self.input_shape: tuple[int, ...] = tuple(input_shape)
        self.classes = classes
        if preprocessing is None:
            preprocessing = Preprocessing(self.input_shape, bits=8 if len(self.input_shape) == 3 else None)
        if preprocessing.input_shape != self.input_shape:
            raise UsageError(
                f"the preprocessing gives {preprocessing.input_shape} from {preprocessing.image_shape}, "
                f"the network takes {self.input_shape}"
            )
        self.preprocessing = preprocessing
        self.class_names = tuple(str(name) for name in class_names or range(classes))
        if len(self.class_names) != classes:
            raise UsageError(f"expected {classes} class names, found {len(self.class_names)}: {self.class_names}")

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters, and of what the network takes."""
        return next(self.parameters()).dtype

    @property
    def initialized(self) -> bool:
        """Whether everything that is initialised from data has been."""
        return True

    def initialize(self, x: Tensor) -> None:
        """Initialise what is not initialised yet from a batch of network inputs; nothing by default."""
        self._check_input(x)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, K) of network inputs."""
        raise NotImplementedError

    def node_rows(self) -> list[NodeRow]:
        """The node table: names, kinds, shapes and parameters, in order of execution."""
        raise NotImplementedError

    def logits_only(self, preprocess: bool = True) -> LogitsOnly:
        """An ordinary module that shares the parameters: images in [0, 1], or network inputs, -> logits (B, K)."""
        return LogitsOnly(self, preprocess)

    def parameter_count(self) -> int:
        """Number of trainable parameters, a prior's included."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def _check_input(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.input_shape or not x.is_floating_point():
            expected = ", ".join(map(str, self.input_shape))
            raise UsageError(f"expected floating-point inputs (B, {expected}), found {tuple(x.shape)} of {x.dtype}")

    def _table(self, outputs: str) -> str:
        """The repr, but for its end: what goes in and out, and the node table."""
        rows = self.node_rows()
        lines = [
            f"{type(self).__name__}: {shape_text(self.input_shape)} -> {outputs}, {self.parameter_count():,} parameters",
            f"  {self.preprocessing}",
        ]
        width = max(len(row.name) for row in rows)
        for row in rows:
            shapes = f"{' + '.join(map(shape_text, row.shapes_in))} -> {' + '.join(map(shape_text, row.shapes_out))}"
            lines.append(f"  {row.name:<{width}}  {shapes:<28}  {row.parameters:>9,}")
        return "\n".join(lines)

    # Calling goes through nn.Module, which says Any.
    def forward(self, x: Tensor) -> Any:
        """Encode network inputs: an :class:`Encoding`."""
        raise NotImplementedError


def shape_text(shape: Sequence[int]) -> str:
    """A shape as a table shows it: 1x28x28."""
    return "x".join(map(str, shape))


class LogitsOnly(nn.Module):
    """A classifier's logits alone, for any tool that wants an ordinary module.

    Args:
        classifier: whose parameters are shared, not copied.
        preprocess: take images in [0, 1]; otherwise network inputs.
    """

    def __init__(self, classifier: Classifier, preprocess: bool = True) -> None:
        super().__init__()
        self.classifier = classifier
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.classifier.logits(self.classifier.preprocessing(images) if self.preprocess else images)
