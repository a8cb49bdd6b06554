"""What is measured on the validation part after each epoch, by the names of an epoch's row without ``validation.``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.classifier import Classifier, Encoding, InvertibleClassifier
from flowclf.data import DataSet, mix_seed
from flowclf.losses import AdversarialLoss
from flowclf.modes import evaluating
from flowclf.training.processes import Processes


def validate_classifier(classifier: Classifier, data: DataSet, processes: Processes) -> dict[str, float]:
    """Error and cross-entropy, and bits per dimension if the classifier has an inverse."""
    totals = dict.fromkeys(("examples", "error", "cross_entropy_nats"), 0.0)
    if isinstance(classifier, InvertibleClassifier):
        totals["bits_per_dim"] = 0.0
    with evaluating(classifier):
        for encoding, labels in _encodings(classifier, data, processes):
            totals["examples"] += len(labels)
            totals["error"] += float((encoding.logits.argmax(1) != labels).sum())
            totals["cross_entropy_nats"] += float(functional.cross_entropy(encoding.logits, labels, reduction="sum"))
            if isinstance(classifier, InvertibleClassifier):
                log_prob = classifier.prior.log_prob(encoding.logits, encoding.nuisance) + encoding.log_det
                totals["bits_per_dim"] += float(classifier.preprocessing.bits_per_dim(log_prob).sum())
    return _means(totals, classifier.device, processes)


def validate_adversary(loss: AdversarialLoss, classifier: Classifier, data: DataSet, processes: Processes) -> dict[str, float]:
    """The adversary's own loss."""
    totals = {"examples": 0.0, loss.adversary_loss_name: 0.0}
    with evaluating(classifier), evaluating(loss):
        for encoding, labels in _encodings(classifier, data, processes):
            totals["examples"] += len(labels)
            totals[loss.adversary_loss_name] += float(loss.adversary_loss(encoding, labels)) * len(labels)
    return _means(totals, classifier.device, processes)


def _means(totals: dict[str, float], device: torch.device, processes: Processes) -> dict[str, float]:
    """Sums over this process's ``examples``, as means over those of all processes."""
    together = processes.sums(totals, device)
    examples = together.pop("examples")
    return {name: total / examples for name, total in together.items()}


def _encodings(classifier: Classifier, data: DataSet, processes: Processes) -> Iterator[tuple[Encoding, Tensor]]:
    """Encodings of the validation part and their labels, in batches that the processes share out.

    The noise is the same after every epoch, and for any number of processes.
    """
    generator = torch.Generator().manual_seed(mix_seed(data.seed, "validation"))
    for number, part in enumerate(data.validation.batches(500)):
        x = classifier.preprocessing.dequantize(part.inputs, generator)
        if number % processes.size == processes.rank:
            yield classifier(x.to(classifier.dtype)), part.labels
