"""Oracles label metamers: the truth where it is known, or an independent classifier."""

from __future__ import annotations

from torch import Tensor

from flowclf.classifier import Classifier, require_invertible
from flowclf.data import Oracle
from flowclf.errors import UsageError
from flowclf.modes import evaluating


def ready_oracle(oracle: Oracle | Classifier, clf: Classifier) -> Oracle:
    """The oracle as a function of images in [0, 1] or vectors, of any device and precision.

    A classifier is used in eval mode, and left in the mode it was in.

    Raises:
        UsageError: if the oracle is a classifier of other images or classes than ``clf``, or ``clf`` is a plain network, which
            has no metamers.
    """
    if not isinstance(oracle, Classifier):
        if not callable(oracle):
            raise UsageError(f"the oracle: expected a classifier or a function, found a {type(oracle).__name__}")
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
