"""A classifier's outputs on stored data, batch by batch, and the check that the two fit each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.errors import UsageError
from flowclf.modes import evaluating


class Encoded(NamedTuple):
    """Outputs of a classifier on a split, on the CPU.

    Attributes:
        logits: (N, K).
        nuisance: (N, D-K).
        log_prob: (N,), nats: log p(x) of the network's input, marginal over the classes.
    """

    logits: Tensor
    nuisance: Tensor
    log_prob: Tensor


def check_fits(clf: Classifier, data: DataSet, parts: Sequence[str] = ("train", "validation", "test")) -> None:
    """Check that a classifier can be evaluated on data.

    Args:
        clf: any.
        data: of its shape and classes.
        parts: which parts of the data are needed.

    Raises:
        UsageError: if the data have another shape, number of classes or names of classes (unless one side has numbers for names);
            if a part is empty, or the test data are of a single class and so have no metamers.
    """
    if tuple(data.image_shape) != clf.preprocessing.image_shape or data.classes != clf.classes:
        raise UsageError(
            f"data set '{data.name}' has {data.classes} classes of shape {tuple(data.image_shape)}; "
            f"the classifier takes {clf.classes} of {clf.preprocessing.image_shape}"
        )
    unnamed = tuple(map(str, range(clf.classes)))
    if data.class_names != clf.class_names and unnamed not in (data.class_names, clf.class_names):
        raise UsageError(f"data set '{data.name}' has the classes {data.class_names}; the classifier's are {clf.class_names}")
    for name in parts:
        split: Split = getattr(data, name)
        if not len(split):
            raise UsageError(f"data set '{data.name}': expected {name} data to evaluate on, found none")
        if name == "test" and isinstance(clf, InvertibleClassifier) and bool((split.labels == split.labels[0]).all()):
            raise UsageError(f"data set '{data.name}': expected test data of at least two classes, for metamers")


def network_inputs(clf: Classifier, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Stored data (uint8 images or float vectors), dequantised, on the classifier's device and in its precision.

    Args:
        clf: the classifier whose preprocessing is used.
        data: (B, C, H, W) uint8, 0..255, or (B, D) continuous.
        generator: source of the noise; with one on the CPU the noise is the same on every device.
    """
    return clf.preprocessing.dequantize(data, generator).to(clf.device, clf.dtype)


def encode(
    clf: InvertibleClassifier,
    data: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 128,
    advance: Callable[[int], object] | None = None,
) -> Encoded:
    """Encode stored data batch by batch, in eval mode, without gradients.

    The dequantisation noise comes from a CPU generator with the given seed, so it depends neither on the device nor on
    ``batch_size``.

    Args:
        clf: the classifier; the modes of its parts are as before afterwards.
        data: (N, C, H, W) uint8, 0..255, or (N, D) continuous.
        seed: random seed of the noise.
        batch_size: inputs per batch. On a CPU, batches whose feature maps outgrow its caches take twice as long.
        advance: called with the number of inputs after each batch.

    Returns:
        Outputs on the CPU.

    Raises:
        UsageError: if there are no data, or the batch size is below 1.

    Example:
        >>> import flowclf
        >>> clf = flowclf.build_classifier(input_shape=(4,), nodes=["actnorm", "split_head"], classes=2)
        >>> encode(clf, torch.zeros(3, 4)).nuisance.shape
        torch.Size([3, 2])
    """

    def read(x: Tensor) -> tuple[Tensor, ...]:
        logits, nuisance, log_det = clf(x)
        return logits, nuisance, clf.prior.log_prob(logits, nuisance) + log_det

    return Encoded(*_batch_by_batch(clf, data, read, seed, batch_size, advance))


def classify(
    clf: Classifier,
    data: Tensor,
    *,
    seed: int = 0,
    batch_size: int = 256,
    advance: Callable[[int], object] | None = None,
) -> Tensor:
    """Logits (N, K) of stored data on the CPU; of any classifier. Arguments and noise are those of :func:`encode`."""
    (logits,) = _batch_by_batch(clf, data, lambda x: (clf.logits(x),), seed, batch_size, advance)
    return logits


def _batch_by_batch(
    clf: Classifier,
    data: Tensor,
    read: Callable[[Tensor], tuple[Tensor, ...]],
    seed: int,
    batch_size: int,
    advance: Callable[[int], object] | None,
) -> tuple[Tensor, ...]:
    """The outputs of ``read`` on all network inputs, each put together on the CPU."""
    if not len(data):
        raise UsageError("expected at least one input to evaluate, found none")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, found {batch_size}")
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[Tensor, ...]] = []
    with evaluating(clf):
        for batch in torch.split(data, batch_size):
            rows.append(tuple(value.cpu() for value in read(network_inputs(clf, batch, generator))))
            if advance is not None:
                advance(len(batch))
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))
