"""Base class of all classifiers: shapes, preprocessing, class names, logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from flowclf.errors import UsageError
from flowclf.graph import NodeRow, parameter_count
from flowclf.preprocessing import Preprocessing


class Encoding(NamedTuple):
    """Output of a classifier for a batch.

    Attributes:
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
        return cls(logits, logits.new_zeros(logits.shape[0], 0), logits.new_zeros(logits.shape[0]))


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

    def _example(self) -> Tensor:
        """A tensor of the classifier's device and floating-point type."""
        return next(self.parameters())

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self._example().device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters and of the network's inputs."""
        return self._example().dtype

    @property
    def initialized(self) -> bool:
        """Whether all data-dependent initialisation is done."""
        return True

    def initialize(self, x: Tensor) -> None:
        """Do the missing data-dependent initialisation, from a batch of network inputs; nothing by default."""
        self._checked(x)

    def logits(self, x: Tensor) -> Tensor:
        """Compute the logits (B, K) of network inputs."""
        raise NotImplementedError

    def node_rows(self) -> list[NodeRow]:
        """Rows of the node table: names, kinds, shapes and parameter counts, in order of execution."""
        raise NotImplementedError

    def logits_only(self, preprocess: bool = True) -> LogitsOnly:
        """Wrap the classifier as a module from images in [0, 1], or without ``preprocess`` network inputs, to logits (B, K)."""
        return LogitsOnly(self, preprocess)

    def parameter_count(self) -> int:
        """Number of trainable parameters, including a prior's."""
        return parameter_count(self)

    def _checked(self, x: Tensor) -> Tensor:
        """Network inputs, feature maps in channels-last format, after a check of their shape and type."""
        if not isinstance(x, Tensor):
            raise UsageError(
                f"expected network inputs as a tensor, found a {type(x).__name__}; torch.as_tensor makes one of an array"
            )
        if tuple(x.shape[1:]) != self.input_shape or not x.is_floating_point():
            expected = ", ".join(map(str, self.input_shape))
            raise UsageError(f"expected floating-point inputs (B, {expected}), found {tuple(x.shape)} of {x.dtype}")
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def _table(self, outputs: str) -> str:
        """Shared beginning of the reprs: inputs, outputs, preprocessing and the node table."""

        def text(*shapes: Sequence[int]) -> str:
            return " + ".join("x".join(map(str, shape)) for shape in shapes)

        rows = self.node_rows()
        width = max(len(row.name) for row in rows)
        return "\n".join(
            [
                f"{type(self).__name__}: {text(self.input_shape)} -> {outputs}, {self.parameter_count():,} parameters",
                f"  {self.preprocessing}",
                *(
                    f"  {row.name:<{width}}  {f'{text(*row.shapes_in)} -> {text(*row.shapes_out)}':<28}  {row.parameters:>9,}"
                    for row in rows
                ),
            ]
        )

    # nn.Module.__call__ returns Any.
    def forward(self, x: Tensor) -> Any:
        """Encode network inputs as an :class:`Encoding`."""
        raise NotImplementedError


class LogitsOnly(nn.Module):
    """A classifier, whose parameters it shares, as a module from images in [0, 1], or network inputs, to logits (B, K)."""

    def __init__(self, classifier: Classifier, preprocess: bool = True) -> None:
        super().__init__()
        self.classifier = classifier
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (B, K)."""
        return self.classifier.logits(self.classifier.preprocessing(images) if self.preprocess else images)
