"""Records of data (split, raw data, batch) and the type of oracles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from flowclf.data.seeding import generator
from flowclf.errors import DataError, UsageError

Oracle: TypeAlias = Callable[[Tensor], Tensor]
"""Function that labels any input with its true class (paper, definition 2): images (B, C, H, W) in [0, 1], or vectors (B, D), ->
scores (B, K), of which the true class has the largest. An independent classifier can serve as an oracle."""


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and labels, both on one device.

    The images of a :class:`~flowclf.data.streaming.StreamedSplit` are not in memory: its :meth:`batches` and :meth:`loaded` decode
    what they return, and ``inputs`` all of it.

    Attributes:
        inputs: images (N, C, H, W), uint8, 0..255; or vectors (N, D) or signals (N, C, L), float32.
        labels: class numbers (N,), int64, from 0.

    Raises:
        DataError: if a shape or type is another, or the lengths differ.

    Example:
        >>> split = Split(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.arange(5))
        >>> len(split), len(split.head(2))
        (5, 2)
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        for name, value in (("inputs", self.inputs), ("labels", self.labels)):
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise DataError(f"{name}: expected a tensor, found a {kind}; DataSet.from_arrays takes arrays and lists")
        images = self.inputs.dim() == 4 and self.inputs.dtype == torch.uint8
        vectors = self.inputs.dim() in (2, 3) and self.inputs.dtype == torch.float32
        if not images and not vectors:
            raise DataError(
                "inputs: expected uint8 images (N, C, H, W), or float32 vectors (N, D) or signals (N, C, L), "
                f"found {self.inputs.dtype} of shape {tuple(self.inputs.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.inputs.shape[:1]:
            raise DataError(
                f"labels: expected int64 of shape ({len(self.inputs)},), "
                f"found {self.labels.dtype} of shape {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W), (D,) or (C, L)."""
        return tuple(self.inputs.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the inputs: uint8 for images, float32 for vectors and signals."""
        return self.inputs.dtype

    @property
    def device(self) -> torch.device:
        """Device of the labels and of all inputs that are read."""
        return self.labels.device

    def loaded(self) -> Split:
        """The split with its inputs in memory, without those that cannot be read.

        Raises:
            UsageError: if they are larger than the data set's budget of memory.
            DataError: if more files than the data set allows cannot be read.
        """
        return self

    def batches(self, size: int) -> Iterator[Split]:
        """Iterate in order over parts of ``size`` examples, in memory, without what cannot be read; errors as in :meth:`loaded`.

        Example:
            >>> [len(part) for part in Split(torch.zeros(5, 2), torch.arange(5)).batches(2)]
            [2, 2, 1]
        """
        for start in range(0, len(self), size):
            yield Split(self.inputs[start : start + size], self.labels[start : start + size])

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device, without a copy if it is already there."""
        return Split(self.inputs.to(device), self.labels.to(device))

    def head(self, n: int) -> Split:
        """The first ``n`` examples, or all if there are fewer, as a view; UsageError if ``n`` is negative."""
        if n < 0:
            raise UsageError(f"head: expected 0 or more examples, found {n}")
        return Split(self.inputs[:n], self.labels[:n])

    def sample(self, n: int, seed: int) -> Split:
        """Draw ``n`` examples at random, or all if there are no more; they keep their order. UsageError if ``n`` is negative.

        Example:
            >>> numbers = Split(torch.arange(100.0)[:, None], torch.zeros(100, dtype=torch.int64))
            >>> numbers.sample(5, seed=0).inputs.flatten().diff().gt(0).tolist()
            [True, True, True, True]
        """
        if len(self.head(n)) == len(self):
            return self
        return self.take(torch.randperm(len(self), generator=generator(seed, "sample"))[:n].sort().values)

    def take(self, indices: Tensor) -> Split:
        """Copy the examples at these indices (M,), in the order of the indices."""
        indices = indices.to(self.inputs.device)
        return Split(self.inputs[indices], self.labels[indices])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of shape {self.shape}, {self.dtype}, on {self.device})"


class RawData(NamedTuple):
    """Return value of a registered data set function: all data, before a validation part is held out.

    Attributes:
        train: the training set, with at least one example of every class.
        test: the test set, of the same shape and type.
        class_names: one name per class, in the order of the labels.
        oracle: true class of any input, if known.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    oracle: Oracle | None = None


class Batch(NamedTuple):
    """A shuffled and augmented training batch.

    Attributes:
        inputs: images (B, C, H, W), uint8, or vectors (B, D), float32, on the device of the data.
        labels: (B,), int64, on the same device.
        generator: CPU generator seeded with (seed, epoch, position), for further random numbers, e.g. dequantisation noise. If the
            batch is shared out among processes, all of them get it in the same state, and can draw for the whole batch.
    """

    inputs: Tensor
    labels: Tensor
    generator: torch.Generator


def check_raw_data(raw: RawData, name: str) -> None:
    """Check that both splits agree with each other and with the class names; DataError if not."""
    if not isinstance(raw, RawData):
        raise DataError(f"data set '{name}': expected RawData, found {type(raw).__name__}")
    train, test, class_names = raw.train, raw.test, raw.class_names
    classes = len(class_names)
    if classes < 2:
        raise DataError(f"data set '{name}': expected at least 2 classes, found {classes}: {', '.join(class_names)}")
    for part, split in (("training", train), ("test", test)):
        if not len(split):
            raise DataError(f"data set '{name}': the {part} set is empty")
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= classes:
            raise DataError(f"data set '{name}': {part} labels: expected 0 to {classes - 1}, found {low} to {high}")
    if (train.dtype, train.shape) != (test.dtype, test.shape):
        raise DataError(f"data set '{name}': expected training and test inputs of one shape and type, found {train} and {test}")
    missing = (torch.bincount(train.labels, minlength=classes) == 0).nonzero().flatten().tolist()
    if missing:
        names = ", ".join(f"{number} ({class_names[number]})" for number in missing)
        raise DataError(f"data set '{name}': the training set has no example of class {names}")
