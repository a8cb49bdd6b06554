"""Metamers: what pairs of logits and nuisances of different classes keep, and what an oracle sees in them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from flowclf.evaluation.context import MetricContext, Need
from flowclf.evaluation.metamers import metamer_statistics
from flowclf.evaluation.metric import Metric, Unit
from flowclf.evaluation.oracles import oracle_errors

__all__ = ["METRICS"]


def _statistics(context: MetricContext) -> dict[str, float]:
    x, labels = context.test_sample
    pairs = context.protocol.pairs
    with context.progress.task("metamers", pairs) as task:
        return metamer_statistics(
            context.invertible, x, labels, pairs=pairs, seed=context.seed, oracle=context.oracle, advance=task.advance
        )


def _oracle_error(context: MetricContext, noisy: bool) -> float:
    return context.once(oracle_errors)[noisy]


def _pairs(context: MetricContext) -> int:
    return context.protocol.pairs


def _metamers(name: str, unit: Unit, meaning: str, *needs: Need, **options: Any) -> Metric:
    """A metric of the one pass over all pairs, which gives it under the same name."""
    key = f"metamers.{name}"
    return Metric(key, unit, meaning, lambda context: context.once(_statistics)[key], needs=("inverse", *needs), **options)


def _by_oracle(suffix: str, words: str, *needs: Need) -> Iterator[Metric]:
    """What an oracle sees: in metamers as they are, or as saved pictures."""
    for name, which, headline in (
        ("donor", "the donor of the nuisances: the attack succeeds", "Attack success"),
        ("logits", "the donor of the logits", ""),
        ("neither", "another class", ""),
    ):
        yield _metamers(
            f"oracle.{name}{suffix}",
            "share",
            f"metamers that the oracle labels as {which}{words}",
            "oracle",
            *needs,
            trials=_pairs,
            headline="" if suffix else headline,
            card=name == "donor" and not suffix,
        )
    yield _metamers(
        f"adversarial{suffix}",
        "share",
        f"metamers that keep their predicted class while the oracle's label changes (Definition 3){words}",
        "oracle",
        *needs,
        headline="" if suffix else "Adversarial examples",
    )


METRICS = (
    Metric("metamers.pairs", "count", "pairs of test examples of different classes", _pairs, needs=("inverse",)),
    _metamers("logit_change_max", "number", "largest |change of a logit| between a metamer and the donor of its logits", card=True),
    _metamers("logit_change_mean", "number", "mean |change of a logit|"),
    _metamers("prediction_kept", "share", "metamers with the predicted class of the donor of their logits", card=True),
    _metamers("distance_mean", "number", "mean distance between a metamer and the donor of its logits, network inputs"),
    _metamers(
        "prediction_kept_8bit",
        "share",
        "metamers that keep their predicted class when saved as 8-bit pictures",
        "images",
        headline="Metamers kept",
        card=True,
    ),
    _metamers("logit_change_8bit_mean", "number", "mean |change of a logit| when saved as 8-bit pictures", "images"),
    _metamers("pixels_out_of_range", "share", "pixels of metamers that are darker or brighter than those of any image", "images"),
    *_by_oracle("", ""),
    *_by_oracle("_8bit", ", when saved as 8-bit pictures", "images"),
    Metric(
        "metamers.oracle.test_error",
        "share",
        "test examples misclassified by the oracle itself",
        partial(_oracle_error, noisy=False),
        needs=("inverse", "oracle"),
        card=True,
    ),
    Metric(
        "metamers.oracle.noisy_test_error",
        "share",
        "test examples misclassified by the oracle, with the dequantisation noise that donors of metamers have",
        partial(_oracle_error, noisy=True),
        needs=("inverse", "oracle", "images"),
    ),
)
