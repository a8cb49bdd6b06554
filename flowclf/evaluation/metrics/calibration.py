"""Calibration: how far the accuracy of predictions is from their confidence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flowclf.errors import UsageError
from flowclf.evaluation.metric import Metric
from flowclf.evaluation.metrics.error import check_outputs


class ReliabilityBins(NamedTuple):
    """Per bin of confidence the number of predictions, their mean confidence and their accuracy; (bins,), float64, 0 if empty."""

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
    sums = (torch.bincount(index, weights=values, minlength=bins) for values in (confidence, (predicted == labels).double()))
    return ReliabilityBins(counts, *(total / counts.clamp_min(1) for total in sums))


def expected_calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    r"""Mean distance of a prediction's bin's accuracy from its mean confidence, a fraction of 1.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{N} |\mathrm{acc}(b) - \mathrm{conf}(b)|

    over bins of equal width (C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017, equation 3, with its 15 bins). Raises as :func:`reliability_bins`.
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
