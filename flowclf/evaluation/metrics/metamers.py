"""Metamers: what they keep, and how an oracle labels them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from flowclf.errors import UsageError
from flowclf.evaluation.context import MetricContext, Need
from flowclf.evaluation.encoding import network_inputs
from flowclf.evaluation.metamers import metamer_statistics
from flowclf.evaluation.metric import Metric, Unit
from flowclf.modes import evaluating


def _statistics(context: MetricContext) -> dict[str, float]:
    clf, (x, labels), pairs = context.invertible, context.test_sample, context.protocol.pairs
    with context.progress.task("metamers", pairs) as task:
        return metamer_statistics(clf, x, labels, pairs=pairs, seed=context.seed, oracle=context.oracle, advance=task.advance)


def _oracle_errors(context: MetricContext) -> tuple[float, float]:
    """Errors of the oracle on the test data, and with dequantisation noise: on metamers that were perfect copies of a donor."""
    clf, oracle, test = context.invertible, context.oracle, context.data.test
    if oracle is None:
        raise UsageError("expected an oracle, found none")
    clean_wrong = noisy_wrong = count = 0
    generator = torch.Generator().manual_seed(context.seed)
    with context.progress.task("oracle", len(test)) as task, evaluating(oracle if isinstance(oracle, nn.Module) else nn.Identity()):
        for part in test.batches(_BATCH):
            inputs, labels = part.inputs, part.labels
            noisy = clf.preprocessing.inverse(network_inputs(clf, inputs, generator))
            clean = noisy if clf.preprocessing.bits is None else inputs.to(noisy) / 255
            clean_wrong += int((oracle(clean).argmax(1) != labels.to(clf.device)).sum())
            noisy_wrong += int((oracle(noisy).argmax(1) != labels.to(clf.device)).sum())
            count += len(labels)
            task.advance(len(labels))
    return clean_wrong / count, noisy_wrong / count


def _pairs(context: MetricContext) -> int:
    return context.protocol.pairs


def _metamers(name: str, unit: Unit, meaning: str, *needs: Need, **options: Any) -> Metric:
    """A metric from the one pass over all pairs."""
    key = f"metamers.{name}"
    return Metric(key, unit, meaning, lambda context: context.once(_statistics)[key], needs=("inverse", "pairs", *needs), **options)


def _by_oracle(suffix: str, words: str, *needs: Need) -> tuple[Metric, ...]:
    """How an oracle labels metamers as they are, or as saved pictures."""
    label = partial(_metamers, trials=_pairs)
    donor, logits, neither = f"oracle.donor{suffix}", f"oracle.logits{suffix}", f"oracle.neither{suffix}"
    attack, adversarial = ("", "") if suffix else ("Attack success", "Adversarial")
    start, needs = "metamers that the oracle labels as", ("oracle", *needs)
    success = f"{start} the donor of the nuisances: the attack succeeds{words}"
    example = f"metamers that keep their predicted class while the oracle's label changes (Definition 3){words}"
    return (
        label(donor, "share", success, *needs, headline=attack, card=not suffix),
        label(logits, "share", f"{start} the donor of the logits{words}", *needs),
        label(neither, "share", f"{start} another class{words}", *needs),
        _metamers(f"adversarial{suffix}", "share", example, *needs, headline=adversarial),
    )


_BATCH = 250
_SAVED = ", when saved as 8-bit pictures"
_KEPT = "metamers that keep their predicted class"

METRICS = (
    _metamers("pairs", "count", "pairs of test examples of different classes"),
    _metamers("logit_change_max", "number", "largest |change of a logit| from the donor of the logits to the metamer", card=True),
    _metamers("logit_change_mean", "number", "mean |change of a logit|"),
    _metamers("prediction_kept", "share", _KEPT, card=True),
    _metamers("distance_mean", "number", "mean distance between a metamer and the donor of its logits, network inputs"),
    _metamers("prediction_kept_8bit", "share", _KEPT + _SAVED, "images", headline="Metamers kept", card=True),
    _metamers("logit_change_8bit_mean", "number", f"mean |change of a logit|{_SAVED}", "images"),
    _metamers("pixels_out_of_range", "share", "pixels of metamers that are darker or brighter than those of any image", "images"),
    *_by_oracle("", ""),
    *_by_oracle("_8bit", _SAVED, "images"),
    Metric(
        "metamers.oracle.test_error",
        "share",
        "test examples misclassified by the oracle itself",
        lambda context: context.once(_oracle_errors)[0],
        needs=("inverse", "oracle"),
        card=True,
    ),
    Metric(
        "metamers.oracle.noisy_test_error",
        "share",
        "test examples misclassified by the oracle, with the dequantisation noise that donors of metamers have",
        lambda context: context.once(_oracle_errors)[1],
        needs=("inverse", "oracle", "images"),
    ),
)
