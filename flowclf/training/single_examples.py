"""Whether a classifier and a loss can be trained on single examples, which have no statistics for a batch norm."""

from __future__ import annotations

import copy

import torch

from flowclf.classifier import Classifier
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.losses import AdversarialLoss, Loss


def check_single_examples(classifier: Classifier, loss: Loss, data: DataSet) -> None:
    """Compute the losses of one training example, on copies.

    Args:
        classifier: the classifier, initialised.
        loss: bound to it.
        data: data whose batches have one example, on the classifier's device.

    Raises:
        UsageError: if a layer or the loss needs more.
    """
    classifier, loss = copy.deepcopy((classifier, loss))
    classifier.train()
    loss.train()
    loss.set_progress(1.0)
    batch = next(data.train_batches(0))
    with torch.random.fork_rng([classifier.device] if classifier.device.type == "cuda" else []):
        try:
            encoding = classifier(classifier.preprocessing.dequantize(batch.inputs, batch.generator).to(classifier.dtype))
            loss(encoding, batch.labels)
            if isinstance(loss, AdversarialLoss):
                loss.adversary_loss(encoding.detach(), batch.labels)
        # The error of torch's batch norms.
        except ValueError as error:
            raise UsageError(f"batch_size: expected at least 2 examples, for a batch norm needs them; found 1: {error}") from error
