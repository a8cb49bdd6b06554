"""Probes: how well classifiers that are trained afresh on the nuisances do, and what that says as information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metric import Metric, Unit
from flowclf.evaluation.probes import entropy_nats, mutual_information_nats
from flowclf.evaluation.probing import TrainedProbes, train_probes

__all__ = ["METRICS"]


def _information(context: MetricContext) -> float:
    trained = context.once(train_probes)
    # A bound chosen by its own value would be biased upwards, so it is always that of the choice on validation data.
    nats = trained.scores[trained.best_on_validation]["test"].cross_entropy_nats
    return mutual_information_nats(context.labels("test"), nats)


def _selected(name: str, unit: Unit, meaning: str, read: Callable[[TrainedProbes, str], Any], **options: Any) -> Metric:
    """A metric that ``read`` finds for the selected probe, or, if its name holds ``{probe}``, for each."""

    def function(context: MetricContext, probe: str = "") -> Any:
        trained = context.once(train_probes)
        return read(trained, probe or trained.selected)

    return Metric(f"probe.{name}", unit, meaning, function, needs=("inverse",), **options)


def _both(name: str, unit: Unit, meaning: str, read: Callable[[TrainedProbes, str], Any]) -> tuple[Metric, Metric]:
    """A metric of the selected probe, and the same of each."""
    return (
        _selected(name, unit, f"{meaning} of the selected probe", read),
        _selected(f"{{probe}}.{name}", unit, f"{meaning} of the probe '{{probe}}'", read),
    )


METRICS = (
    _selected(
        "test_error",
        "share",
        "test examples misclassified by a classifier trained afresh that sees only the nuisances; the lowest of all probes",
        lambda trained, _: trained.scores[trained.best_on_test]["test"].error,
        trials=lambda context: len(context.splits["test"]),
        headline="Probe error",
        card=True,
    ),
    _selected("{probe}.test_error", "share", "test error of the probe '{probe}'", lambda t, name: t.scores[name]["test"].error),
    *_both("train_error", "share", "training error", lambda t, name: t.scores[name]["train"].error),
    _selected(
        "validation_error", "share", "validation error of the selected probe", lambda t, name: t.probes[name].validation.error
    ),
    *_both(
        "validation_cross_entropy_nats",
        "nats",
        "cross-entropy on validation data",
        lambda t, name: t.probes[name].validation.cross_entropy_nats,
    ),
    *_both(
        "test_cross_entropy_nats", "nats", "cross-entropy on test data", lambda t, name: t.scores[name]["test"].cross_entropy_nats
    ),
    Metric(
        "probe.mutual_information_nats",
        "nats",
        "lower bound on the information about the class in the nuisances (Lemma 9)",
        _information,
        needs=("inverse",),
        card=True,
    ),
    Metric(
        "probe.entropy_nats",
        "nats",
        "entropy of the class: all the information that there is",
        lambda context: entropy_nats(context.labels("test")),
        needs=("inverse",),
    ),
    *_both("epochs", "count", "epochs of training", lambda t, name: t.probes[name].epochs),
    _selected(
        "name",
        "text",
        "the selected probe: lowest test error (full), or lowest cross-entropy on validation data (quick)",
        lambda _, name: name,
        card=True,
    ),
    Metric(
        "probe.hidden",
        "text",
        "hidden units of the probe 'mlp', layer by layer",
        lambda context: "-".join(map(str, context.probe_settings.hidden)),
        needs=("inverse",),
    ),
    _selected("train_examples", "count", "training examples of the probes", lambda t, _: t.train_examples),
)
