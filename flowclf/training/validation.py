"""What is measured on the validation part after each epoch, by the names of an epoch's row without ``validation.``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.classifier import Classifier, Encoding, InvertibleClassifier
from flowclf.data import DataSet, mix_seed
from flowclf.losses import AdversarialLoss
from flowclf.modes import evaluating


def validate_classifier(classifier: Classifier, data: DataSet) -> dict[str, float]:
    """Error and cross-entropy, and bits per dimension if the classifier has an inverse."""
    totals: dict[str, float] = defaultdict(float)
    count = 0
    with evaluating(classifier):
        for encoding, labels in _encodings(classifier, data):
            count += len(labels)
            totals["error"] += float((encoding.logits.argmax(1) != labels).sum())
            totals["cross_entropy_nats"] += float(functional.cross_entropy(encoding.logits, labels, reduction="sum"))
            if isinstance(classifier, InvertibleClassifier):
                log_prob = classifier.prior.log_prob(encoding.logits, encoding.nuisance) + encoding.log_det
                totals["bits_per_dim"] += float(classifier.preprocessing.bits_per_dim(log_prob).sum())
    return {name: total / count for name, total in totals.items()}


def validate_adversary(loss: AdversarialLoss, classifier: Classifier, data: DataSet) -> dict[str, float]:
    """The adversary's own loss."""
    total, count = 0.0, 0
    with evaluating(classifier), evaluating(loss):
        for encoding, labels in _encodings(classifier, data):
            total += float(loss.adversary_loss(encoding, labels)) * len(labels)
            count += len(labels)
    return {loss.adversary_loss_name: total / count}


def _encodings(classifier: Classifier, data: DataSet) -> Iterator[tuple[Encoding, Tensor]]:
    """Encodings of the validation part and their labels, in batches; the noise is the same after every epoch."""
    generator = torch.Generator().manual_seed(mix_seed(data.seed, "validation"))
    for part in data.validation.batches(500):
        yield classifier(classifier.preprocessing.dequantize(part.inputs, generator).to(classifier.dtype)), part.labels
