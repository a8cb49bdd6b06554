"""Oracles: they label metamers. The truth where the data know it, or an independent classifier, whose own errors are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from flowclf.classifier import Classifier, require_invertible
from flowclf.data import Oracle
from flowclf.errors import UsageError
from flowclf.evaluation.encoding import network_inputs
from flowclf.modes import evaluating

if TYPE_CHECKING:
    from flowclf.evaluation.context import MetricContext

_BATCH = 250


class OracleErrors(NamedTuple):
    """Errors of an oracle on test data.

    Attributes:
        clean: on the data as they are.
        noisy: with dequantisation noise: what the oracle would misclassify if every metamer were a perfect copy of a donor.
    """

    clean: float
    noisy: float


def ready_oracle(oracle: Oracle | Classifier | None, clf: Classifier) -> Oracle | None:
    """The oracle as a function of images in [0, 1] or vectors, of any device and precision.

    A classifier is used in eval mode, and left in the mode it was in.

    Raises:
        UsageError: if the oracle is a classifier of other images or classes than ``clf``, or ``clf`` is a plain network, which
            has no metamers.
    """
    if not isinstance(oracle, Classifier):
        return oracle
    require_invertible(clf, "an oracle, which labels metamers")
    wanted, found = (clf.preprocessing.image_shape, clf.classes), (oracle.preprocessing.image_shape, oracle.classes)
    if wanted != found:
        raise UsageError(
            f"the oracle reads {found[1]} classes of {found[0]}; expected {wanted[1]} of {wanted[0]}, as the classifier"
        )
    if oracle.class_names != clf.class_names:
        raise UsageError(f"the oracle's classes are {oracle.class_names}, the classifier's {clf.class_names}")
    logits = oracle.logits_only()

    def label(x: Tensor) -> Tensor:
        with evaluating(oracle):
            return logits(x.to(oracle.device, oracle.dtype)).to(x.device)  # type: ignore[no-any-return]

    return label


def oracle_errors(context: MetricContext) -> OracleErrors:
    """The errors of a context's oracle on the test data."""
    clf, oracle, test = context.invertible, context.oracle, context.data.test
    if oracle is None:
        raise UsageError("expected an oracle, found none")
    clean_wrong = noisy_wrong = 0
    generator = torch.Generator().manual_seed(context.seed)
    with context.progress.task("oracle", len(test)) as task, evaluating(oracle if isinstance(oracle, nn.Module) else nn.Identity()):
        for inputs, labels in zip(torch.split(test.inputs, _BATCH), torch.split(test.labels, _BATCH), strict=True):
            noisy = clf.preprocessing.inverse(network_inputs(clf, inputs, generator))
            clean = noisy if clf.preprocessing.bits is None else inputs.to(noisy) / 255
            clean_wrong += int((oracle(clean).argmax(1) != labels.to(clf.device)).sum())
            noisy_wrong += int((oracle(noisy).argmax(1) != labels.to(clf.device)).sum())
            task.advance(len(labels))
    return OracleErrors(clean_wrong / len(test), noisy_wrong / len(test))
