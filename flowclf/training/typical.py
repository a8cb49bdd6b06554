"""What a trained classifier finds typical: measured once, at the end of a training."""

from __future__ import annotations

import math

import torch

from flowclf.classifier import InvertibleClassifier
from flowclf.classifier.typical import TypicalBits
from flowclf.data import DataSet
from flowclf.modes import evaluating

_MOST = 10_000
_FEWEST = 20


def typical_bits(classifier: InvertibleClassifier, data: DataSet) -> TypicalBits | None:
    """Measure the bits per dimension of held-out data, at most 10,000 examples, in eval mode; None if they are not finite.

    Args:
        classifier: trained on the data.
        data: on any device.
    """
    name = "validation" if len(data.validation) >= _FEWEST else "train"
    sample = (data.validation if name == "validation" else data.train).sample(_MOST, data.seed)
    preprocessing, scale = classifier.preprocessing, 1 if classifier.preprocessing.bits is None else 255
    rows = []
    with evaluating(classifier):
        for part in sample.batches(500):
            x = preprocessing(part.inputs.to(classifier.device, classifier.dtype) / scale)
            rows.append(preprocessing.bits_per_dim(classifier.log_prob(x)).double().cpu())
    bits = torch.cat(rows)
    median, high = bits.quantile(torch.tensor([0.5, 0.9], dtype=torch.float64)).tolist()
    if not (math.isfinite(median) and math.isfinite(high)):
        return None
    return TypicalBits(data=name, examples=len(bits), median=median, high=high)
