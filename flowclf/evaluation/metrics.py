"""Numbers about a classifier's outputs: encoding a split, errors and their intervals, cross-entropy, calibration.

Functions of tensors. What is measured on which data, and its name in the results, is the evaluation's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.errors import UsageError
from flowclf.modes import evaluating

if TYPE_CHECKING:
    from flowclf.classifier import Classifier, InvertibleClassifier

__all__ = [
    "Encoded",
    "Interval",
    "ReliabilityBins",
    "classify",
    "cross_entropy_nats",
    "encode",
    "error",
    "error_interval",
    "expected_calibration_error",
    "network_inputs",
    "reliability_bins",
]


class Encoded(NamedTuple):
    """What a classifier makes of a split, on the CPU.

    Attributes:
        logits: (N, K).
        nuisance: (N, D-K).
        log_prob: (N,), nats: log p(x) of the network's input, marginal over the classes.
    """

    logits: Tensor
    nuisance: Tensor
    log_prob: Tensor


class Interval(NamedTuple):
    """An interval of fractions, each in [0, 1]."""

    low: float
    high: float


class ReliabilityBins(NamedTuple):
    """Predictions grouped by their confidence; each field is (bins,), float64.

    Attributes:
        counts: predictions in the bin.
        confidence: mean of the largest class probability in the bin; 0 in an empty one.
        accuracy: fraction of them that are right; 0 in an empty one.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor


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
        seed: of the noise.
        batch_size: inputs a batch. On a CPU, batches whose feature maps outgrow its caches take twice as long.
        advance: called with the number of inputs after each batch.

    Returns:
        Outputs on the CPU.

    Raises:
        UsageError: no data, or a batch size below 1.

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
    """Logits (N, K) of stored data on the CPU; of any classifier, with the noise that :func:`encode` draws.

    Args:
        clf: the classifier; the modes of its parts are as before afterwards.
        data: (N, C, H, W) uint8, 0..255, or (N, D) continuous.
        seed: of the noise.
        batch_size: inputs a batch.
        advance: called with the number of inputs after each batch.

    Raises:
        UsageError: no data, or a batch size below 1.
    """
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
    """What ``read`` makes of all network inputs, on the CPU, its outputs each put together."""
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


def error(logits: Tensor, labels: Tensor) -> float:
    """Fraction of the examples whose largest logit is not that of their label.

    Example:
        >>> error(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1]))
        0.5

    Raises:
        UsageError: no examples, or as many logits (N, K) as labels (N,) were not given.
    """
    _check(logits, labels)
    return (logits.argmax(1) != labels).double().mean().item()


def error_interval(fraction: float, n: int, *, z: float = 1.959963984540054) -> Interval:
    """Wilson's score interval for a fraction of n independent trials; with the default z, 95 %.

    Unlike fraction ± z * standard error, it stays in [0, 1] and is sensible for 0 errors of n (E. B. Wilson, "Probable
    inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22, 1927).

    Example:
        >>> [round(bound, 4) for bound in error_interval(0.01, 10_000)]
        [0.0082, 0.0121]

    Raises:
        UsageError: n is below 1, or the fraction is outside [0, 1].
    """
    if n < 1 or not 0 <= fraction <= 1:
        raise UsageError(f"expected a fraction in [0, 1] of at least 1 trial, found {fraction} of {n}")
    centre = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(fraction * (1 - fraction) / n + (z / (2 * n)) ** 2)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def cross_entropy_nats(logits: Tensor, labels: Tensor) -> float:
    """Mean of -log softmax(logits)[label], nats, summed in float64.

    Raises:
        UsageError: no examples, or as many logits (N, K) as labels (N,) were not given.
    """
    _check(logits, labels)
    return functional.cross_entropy(logits.double(), labels).item()


def reliability_bins(logits: Tensor, labels: Tensor, *, bins: int = 15) -> ReliabilityBins:
    """Group predictions by confidence into bins of equal width; bin k holds k / bins < confidence <= (k + 1) / bins.

    Raises:
        UsageError: no examples, as many logits (N, K) as labels (N,) were not given, or less than one bin.
    """
    _check(logits, labels)
    if bins < 1:
        raise UsageError(f"expected at least 1 bin, found {bins}")
    confidence, predicted = logits.double().softmax(1).max(1)
    index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    counts = torch.bincount(index, minlength=bins).double()
    filled = counts.clamp_min(1)
    right = (predicted == labels).double()
    return ReliabilityBins(
        counts,
        torch.bincount(index, weights=confidence, minlength=bins) / filled,
        torch.bincount(index, weights=right, minlength=bins) / filled,
    )


def expected_calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    r"""Mean over predictions of how far their bin's accuracy is from its mean confidence, a fraction of 1.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{N} |\mathrm{acc}(b) - \mathrm{conf}(b)|

    over bins of equal width (C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017, equation 3, with its 15 bins).

    Raises:
        UsageError: no examples, as many logits (N, K) as labels (N,) were not given, or less than one bin.
    """
    counts, confidence, accuracy = reliability_bins(logits, labels, bins=bins)
    return ((counts / counts.sum()) * (accuracy - confidence).abs()).sum().item()


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise UsageError(
            f"expected logits (N, K) and labels (N,) of at least one example, found {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
