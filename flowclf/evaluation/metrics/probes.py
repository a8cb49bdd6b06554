"""Probes: errors of classifiers trained afresh on the nuisances, and the information that they bound."""

from __future__ import annotations

from functools import partial

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metric import Metric, Unit
from flowclf.evaluation.metrics.error import example_count
from flowclf.evaluation.probes import entropy_nats, mutual_information_nats
from flowclf.evaluation.probing import saturated, train_probes


def _score(context: MetricContext, probe: str = "", *, name: str) -> float:
    """``<split>_error`` or ``<split>_cross_entropy_nats`` of a probe, by default of the selected one."""
    trained, (split, _, field) = context.once(train_probes), name.partition("_")
    return getattr(trained.scores[probe or trained.selected][split], field)  # type: ignore[no-any-return]


def _epochs(context: MetricContext, probe: str = "") -> int:
    trained = context.once(train_probes)
    return trained.probes[probe or trained.selected].epochs


def _growth(context: MetricContext, probe: str) -> float:
    return context.once(train_probes).probes[probe].growth


def _on_curve(context: MetricContext, part: str) -> float:
    return context.once(train_probes).curve[part].error


def _saturated(context: MetricContext) -> str:
    half, whole = (_on_curve(context, part) for part in ("half", "whole"))
    return "yes" if saturated(half, whole, example_count(context, "validation")) else "no"


def _lowest_test_error(context: MetricContext) -> float:
    trained = context.once(train_probes)
    return trained.scores[trained.best_on_test]["test"].error


def _information(context: MetricContext) -> float:
    trained = context.once(train_probes)
    # A bound selected by its own value would be biased upwards, so the probe selected on validation data always counts.
    nats = trained.scores[trained.best_on_validation]["test"].cross_entropy_nats
    return mutual_information_nats(context.labels("test"), nats)


_probe = partial(Metric, needs=("inverse", "training"))
_full = partial(_probe, protocols=("full",))
_test_examples = partial(example_count, split="test")
_LOWEST = "test error of a classifier trained afresh on the nuisances alone; the lowest of all probes"
_NAME = "the selected probe: lowest test error (full), or lowest cross-entropy on validation data (quick)"
_INFORMATION = "lower bound on the information about the class in the nuisances (Lemma 9)"
_HIDDEN = "hidden units of the probe 'mlp', layer by layer"
_DRAWS = "draws of noise and augmentation of the training images that the probes see in training"
_GROWTH = "size of the probe '{probe}': about how many times its first size, in parameters; the best on validation data counts"
_CURVE = "the probe of the learning curve: lowest cross-entropy on validation data"
_SATURATED = (
    "whether the validation error on the learning curve falls, from half of the training examples to all, by no more than a tenth "
    "or half the width of its 95 % interval; if not, a better attacker would err less than the probes"
)
_SCORES: tuple[tuple[str, Unit, str], ...] = (
    ("train_error", "share", "training error"),
    ("validation_error", "share", "validation error"),
    ("test_error", "share", "test error"),
    ("validation_cross_entropy_nats", "nats", "cross-entropy on validation data"),
    ("test_cross_entropy_nats", "nats", "cross-entropy on test data"),
)


METRICS = (
    _probe("probe.test_error", "share", _LOWEST, _lowest_test_error, trials=_test_examples, headline="Probe error", card=True),
    *(
        _probe(f"probe.{name}", unit, f"{meaning} of the selected probe", partial(_score, name=name))
        for name, unit, meaning in _SCORES
        if name != "test_error"
    ),
    _probe("probe.mutual_information_nats", "nats", _INFORMATION, _information, card=True),
    _probe("probe.entropy_nats", "nats", "entropy of the class", lambda context: entropy_nats(context.labels("test"))),
    _probe("probe.epochs", "count", "epochs of training of the selected probe", _epochs),
    _probe("probe.name", "text", _NAME, lambda context: context.once(train_probes).selected, card=True),
    _probe("probe.hidden", "text", _HIDDEN, lambda context: "-".join(map(str, context.probe_settings.hidden))),
    _probe("probe.train_examples", "count", "training examples of the probes", lambda c: c.once(train_probes).train_examples),
    _probe("probe.draws", "count", _DRAWS, lambda context: context.once(train_probes).draws),
    _full("probe.saturated", "text", _SATURATED, _saturated, card=True),
    *(
        _probe(f"probe.{{probe}}.{name}", unit, f"{meaning} of the probe '{{probe}}'", partial(_score, name=name))
        for name, unit, meaning in _SCORES
        if name != "validation_error"
    ),
    _probe("probe.{probe}.epochs", "count", "epochs of training of the probe '{probe}'", _epochs),
    _full("probe.{probe}.growth", "number", _GROWTH, _growth),
    _full("probe.curve.name", "text", _CURVE, lambda context: context.once(train_probes).best_on_validation),
    *(
        _full(
            f"probe.curve.{key}validation_error",
            "share",
            f"validation error of the probe of the learning curve, trained on {words} of the training examples",
            partial(_on_curve, part=part),
        )
        for part, key, words in (("quarter", "quarter_", "a quarter"), ("half", "half_", "half"), ("whole", "", "all"))
    ),
)
