"""Probes: errors of classifiers trained afresh on the nuisances, and the information that they bound."""

from __future__ import annotations

from functools import partial

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metric import Metric, Unit
from flowclf.evaluation.metrics.error import example_count
from flowclf.evaluation.probes import entropy_nats, mutual_information_nats
from flowclf.evaluation.probing import train_probes


def _score(context: MetricContext, probe: str = "", *, name: str) -> float:
    """``<split>_error`` or ``<split>_cross_entropy_nats`` of a probe, by default of the selected one."""
    trained, (split, _, field) = context.once(train_probes), name.partition("_")
    return getattr(trained.scores[probe or trained.selected][split], field)  # type: ignore[no-any-return]


def _epochs(context: MetricContext, probe: str = "") -> int:
    trained = context.once(train_probes)
    return trained.probes[probe or trained.selected].epochs


def _lowest_test_error(context: MetricContext) -> float:
    trained = context.once(train_probes)
    return trained.scores[trained.best_on_test]["test"].error


def _information(context: MetricContext) -> float:
    trained = context.once(train_probes)
    # A bound selected by its own value would be biased upwards, so the probe selected on validation data always counts.
    nats = trained.scores[trained.best_on_validation]["test"].cross_entropy_nats
    return mutual_information_nats(context.labels("test"), nats)


_probe = partial(Metric, needs=("inverse", "training"))
_test_examples = partial(example_count, split="test")
_LOWEST = "test error of a classifier trained afresh on the nuisances alone; the lowest of all probes"
_NAME = "the selected probe: lowest test error (full), or lowest cross-entropy on validation data (quick)"
_INFORMATION = "lower bound on the information about the class in the nuisances (Lemma 9)"
_HIDDEN = "hidden units of the probe 'mlp', layer by layer"
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
    *(
        _probe(f"probe.{{probe}}.{name}", unit, f"{meaning} of the probe '{{probe}}'", partial(_score, name=name))
        for name, unit, meaning in _SCORES
        if name != "validation_error"
    ),
    _probe("probe.{probe}.epochs", "count", "epochs of training of the probe '{probe}'", _epochs),
)
