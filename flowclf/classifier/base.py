"""Base class of all classifiers: shapes, preprocessing, class names, logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from flowclf.errors import UsageError
from flowclf.graph import NodeRow
from flowclf.preprocessing import Preprocessing


class Encoding(NamedTuple):
    """Output of a classifier for a batch.

    Args:
        logits: z_s, (B, K).
        nuisance: z_n, (B, D-K); (B, 0) if the network has no inverse or the loss does not use them.
        log_det: log|det dF/dx|, (B,), nats; zeros if the network has no inverse.

    Example:
        >>> logits, nuisance, log_det = Encoding(torch.zeros(2, 10), torch.zeros(2, 5), torch.zeros(2))
    """

    logits: Tensor
    nuisance: Tensor
    log_det: Tensor

    def detach(self) -> Encoding:
        """Detach all three tensors from the autograd graph."""
        return Encoding(*(values.detach() for values in self))

    @classmethod
    def of_logits(cls, logits: Tensor) -> Encoding:
        """Encoding of a network that has logits only: no nuisances, and log-determinants of 0."""
        return cls(logits, logits.new_zeros(len(logits), 0), logits.new_zeros(len(logits)))


class Classifier(nn.Module):
    """Base class of :class:`InvertibleClassifier` and :class:`PlainClassifier`.

    Args:
        input_shape: shape of one network input, (C, H, W) or (D,).
        classes: K, the number of classes, at least 2.
        preprocessing: map from images in [0, 1] to network inputs; by default 8-bit images without padding, or the identity for
            vectors.
        class_names: names of the K classes; by default "0" to "K-1".

    Attributes:
        kind: the classifier's kind in a checkpoint.

    Raises:
        UsageError: if the preprocessing or the class names do not fit.
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
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters and of the network's inputs."""
        return next(self.parameters()).dtype

    @property
    def initialized(self) -> bool:
        """Whether all data-dependent initialisation is done."""
        return True

    def initialize(self, x: Tensor) -> None:
        """Do the data-dependent initialisation that is still missing from a batch of network inputs; nothing by default."""
        self._check_input(x)

    def logits(self, x: Tensor) -> Tensor:
        """Compute the logits (B, K) of network inputs."""
        raise NotImplementedError

    def node_rows(self) -> list[NodeRow]:
        """Rows of the node table: names, kinds, shapes and parameter counts, in order of execution."""
        raise NotImplementedError

    def logits_only(self, preprocess: bool = True) -> LogitsOnly:
        """Wrap the classifier, sharing its parameters, as a module from images in [0, 1], or network inputs, to logits (B, K)."""
        return LogitsOnly(self, preprocess)

    def parameter_count(self) -> int:
        """Number of trainable parameters, including a prior's."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def _check_input(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.input_shape or not x.is_floating_point():
            expected = ", ".join(map(str, self.input_shape))
            raise UsageError(f"expected floating-point inputs (B, {expected}), found {tuple(x.shape)} of {x.dtype}")

    def _table(self, outputs: str) -> str:
        """Shared beginning of the reprs: inputs, outputs, preprocessing and the node table."""
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

    # nn.Module.__call__ returns Any.
    def forward(self, x: Tensor) -> Any:
        """Encode network inputs as an :class:`Encoding`."""
        raise NotImplementedError


def shape_text(shape: Sequence[int]) -> str:
    """Format a shape for a table: 1x28x28."""
    return "x".join(map(str, shape))


class LogitsOnly(nn.Module):
    """Module that returns a classifier's logits alone, for tools that expect an ordinary network.

    Args:
        classifier: the classifier; its parameters are shared, not copied.
        preprocess: take images in [0, 1]; otherwise network inputs.
    """

    def __init__(self, classifier: Classifier, preprocess: bool = True) -> None:
        super().__init__()
        self.classifier = classifier
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (B, K)."""
        return self.classifier.logits(self.classifier.preprocessing(images) if self.preprocess else images)
