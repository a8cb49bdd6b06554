"""Who judges the metamers: the truth where data know it, or an independent classifier; and how far it is to be trusted itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flowclf.classifier import Classifier, InvertibleClassifier, require_invertible
from flowclf.data import Oracle, Split
from flowclf.errors import UsageError
from flowclf.evaluation.metrics import error_interval, network_inputs
from flowclf.modes import evaluating

__all__ = ["oracle_intervals", "oracle_results", "ready_oracle"]

_BATCH = 250


def ready_oracle(oracle: Oracle | Classifier | None, clf: Classifier) -> Oracle | None:
    """The oracle as a function of images in [0, 1] or vectors, on whatever device and of whatever precision they come.

    A classifier that is one judges in eval mode, and is left as it was.

    Raises:
        UsageError: a classifier of other images or classes than those that it is to judge, or one for a plain network, which
            has no metamers.
    """
    if not isinstance(oracle, Classifier):
        return oracle
    require_invertible(clf, "an oracle, which judges metamers")
    wanted, found = (clf.preprocessing.image_shape, clf.classes), (oracle.preprocessing.image_shape, oracle.classes)
    if wanted != found:
        raise UsageError(
            f"the oracle reads {found[1]} classes of {found[0]}; expected {wanted[1]} of {wanted[0]}, as the classifier"
        )
    if oracle.class_names != clf.class_names:
        raise UsageError(f"the oracle's classes are {oracle.class_names}, the classifier's {clf.class_names}")
    logits = oracle.logits_only()

    def judge(x: Tensor) -> Tensor:
        with evaluating(oracle):
            return logits(x.to(oracle.device, oracle.dtype)).to(x.device)  # type: ignore[no-any-return]

    return judge


def oracle_results(
    clf: InvertibleClassifier, oracle: Oracle, test: Split, seed: int, advance: Callable[[int], object]
) -> dict[str, Any]:
    """``metamers.oracle.test_error`` on the test data as they are; ``.noisy_test_error`` with the noise that metamers' donors have.

    The latter is what an oracle would get wrong if every metamer were a perfect copy of a donor.
    """
    wrong = {"test_error": 0, "noisy_test_error": 0}
    generator = torch.Generator().manual_seed(seed)
    with evaluating(oracle if isinstance(oracle, nn.Module) else nn.Identity()):
        for inputs, labels in zip(torch.split(test.inputs, _BATCH), torch.split(test.labels, _BATCH), strict=True):
            noisy = clf.preprocessing.inverse(network_inputs(clf, inputs, generator))
            clean = noisy if clf.preprocessing.bits is None else inputs.to(noisy) / 255
            for name, shown in (("test_error", clean), ("noisy_test_error", noisy)):
                wrong[name] += int((oracle(shown).argmax(1) != labels.to(clf.device)).sum())
            advance(len(labels))
    if clf.preprocessing.bits is None:
        del wrong["noisy_test_error"]
    return {f"metamers.oracle.{name}": count / len(test) for name, count in wrong.items()}


def oracle_intervals(results: Mapping[str, Any], pairs: int) -> dict[str, float]:
    """The results of metamers, each share of an oracle's answers followed by its 95 % interval (Wilson), ``_low`` and ``_high``."""
    with_intervals: dict[str, Any] = {}
    for name, value in results.items():
        with_intervals[name] = value
        if name.startswith("metamers.oracle."):
            low, high = error_interval(value, pairs)
            with_intervals |= {f"{name}_low": low, f"{name}_high": high}
    return with_intervals
