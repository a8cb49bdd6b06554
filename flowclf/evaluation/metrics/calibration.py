"""Calibration: how far the accuracy of predictions is from their confidence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flowclf.errors import UsageError
from flowclf.evaluation.metric import Metric
from flowclf.evaluation.metrics.error import check_outputs


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


def reliability_bins(logits: Tensor, labels: Tensor, *, bins: int = 15) -> ReliabilityBins:
    """Group predictions by confidence into bins of equal width; bin k holds k / bins < confidence <= (k + 1) / bins.

    Raises:
        UsageError: if there are no examples, the shapes do not match, or there is less than one bin.
    """
    check_outputs(logits, labels)
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
        UsageError: if there are no examples, the shapes do not match, or there is less than one bin.
    """
    counts, confidence, accuracy = reliability_bins(logits, labels, bins=bins)
    return ((counts / counts.sum()) * (accuracy - confidence).abs()).sum().item()


METRICS = (
    Metric(
        "test.calibration_error",
        "share",
        "mean distance between accuracy and confidence, 15 bins",
        lambda context: expected_calibration_error(context.logits("test"), context.labels("test")),
        card=True,
    ),
)
