"""Training of the probes that a protocol selects."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet
from flowclf.data.seeding import generator
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.draws import Draws, nuisance_draws
from flowclf.evaluation.duration import evaluation_seconds
from flowclf.evaluation.encoding import check_fits
from flowclf.evaluation.interval import error_interval
from flowclf.evaluation.probes import Probe, ProbeKind, ProbeScore, score_probe
from flowclf.modes import evaluating, repeatable
from flowclf.progress import forecast
from flowclf.settings import ProbeSettings

_GAIN = 0.01
_FALL = 0.1
_PARTS = {"quarter": 4, "half": 2}


@dataclass(frozen=True)
class TrainedProbes:
    """The trained probes of an evaluation by name, in eval mode, with their scores on ``train``, ``validation`` and ``test``.

    The best probe on validation data has the lowest cross-entropy, the best on test data the lowest error; the protocol selects
    one of the two. ``curve`` has the scores on validation data of the best one there, trained on a ``quarter``, on ``half`` and on
    the ``whole`` of the training examples, if the protocol asks for it. ``draws`` is the number of draws of the training images.
    """

    probes: Mapping[str, Probe]
    scores: Mapping[str, Mapping[str, ProbeScore]]
    best_on_validation: str
    best_on_test: str
    selected: str
    train_examples: int
    draws: int
    curve: Mapping[str, ProbeScore] = field(default_factory=dict)


def nuisance_probe(clf: InvertibleClassifier, data: DataSet, *, probe: ProbeSettings | None = None, **options: Any) -> Probe:
    """Train the nuisance classifier of :func:`flowclf.evaluate`, and nothing else.

    Args:
        clf, data, probe: as for :func:`flowclf.evaluate`, which documents the errors too.
        options: ``protocol``, ``seed`` and ``progress``.

    Returns:
        The probe with the lowest validation cross-entropy, nuisances (B, D-K) -> logits (B, K), in eval mode.
    """
    if probe is not None and probe.examples is not None:
        data = dataclasses.replace(data, train=data.train.head(probe.examples))
    context = MetricContext(clf, data, probe=probe, **options)
    check_fits(clf, data, ("train", "validation"))
    with repeatable(clf.device), evaluating(clf):
        forecast(context.progress, "probe", lambda: evaluation_seconds(context, ("probe.name",)))
        context.encode("train", "validation")
        probes = _train(context, nuisance_draws(context, context.probe_settings.examples))
    return probes[_best_on_validation(probes)]


def train_probes(context: MetricContext) -> TrainedProbes:
    """Train and score the probes that the context's protocol selects."""
    # Local, so that all draws but the first are freed as soon as every probe is trained.
    draws = nuisance_draws(context, context.probe_settings.examples)
    probes = _train(context, draws)
    on_validation = _best_on_validation(probes)
    curve = _learning_curve(context, draws, on_validation, probes[on_validation]) if context.protocol.probe_curve else {}
    train, test = (draws[0], _labels(context, draws)), (context.encoded("test").nuisance, context.labels("test"))
    scores = {
        name: {"train": score_probe(probe, *train), "validation": probe.validation, "test": score_probe(probe, *test)}
        for name, probe in probes.items()
    }
    on_test = min(scores, key=lambda name: scores[name]["test"].error)
    selected = on_test if context.protocol.selected_on == "test" else on_validation
    return TrainedProbes(probes, scores, on_validation, on_test, selected, len(train[1]), len(draws), curve)


def saturated(half: float, whole: float, examples: int) -> bool:
    """Whether more training examples would hardly help a probe.

    They would if the error on validation data still falls, from half of the training examples to the whole, by more than a tenth of
    itself and by more than half the width of its 95 % interval.

    Args:
        half, whole: errors on validation data, fractions of 1, after training on half of the examples and on all.
        examples: number of validation examples.

    Example:
        >>> saturated(0.41, 0.40, 5000), saturated(0.50, 0.40, 5000), saturated(0.50, 0.40, 20)
        (True, False, True)
    """
    low, high = error_interval(whole, examples)
    return half - whole <= max(_FALL * half, (high - low) / 2)


def _labels(context: MetricContext, draws: Draws) -> Tensor:
    return context.labels("train")[: len(draws[0])]


def _train(context: MetricContext, draws: Draws) -> dict[str, Probe]:
    """The probes by name, each of the size that is best on validation data."""
    kinds = context.probe_kinds
    trained = {}
    for name, kind in kinds.items():
        best, growth = _probe(context, draws, kind, f"probe {name}"), 1
        while kind.grows and 2 * growth <= context.protocol.probe_growth:
            growth *= 2
            grown = _probe(context, draws, kind, f"probe {name}, {growth} times the size", growth)
            before, after = (probe.validation.cross_entropy_nats for probe in (best, grown))
            best = grown if after < before else best
            if not after < (1 - _GAIN) * before:
                break
        trained[name] = best
    return trained


def _learning_curve(context: MetricContext, draws: Draws, name: str, probe: Probe) -> dict[str, ProbeScore]:
    kind = context.probe_kinds[name]
    curve = {}
    for part, divisor in _PARTS.items():
        title = f"probe {name}, {part} of the examples"
        curve[part] = _probe(context, draws, kind, title, probe.growth, divisor).validation
    return curve | {"whole": probe.validation}


def _probe(context: MetricContext, draws: Draws, kind: ProbeKind, title: str, growth: float = 1, divisor: int = 1) -> Probe:
    """Train a probe of a size on all training examples, or on one in ``divisor``, in the same number of steps."""
    clf, protocol, settings = context.invertible, context.protocol, context.probe_settings
    features, labels = draws, _labels(context, draws)
    if divisor > 1:
        order = torch.randperm(len(labels), generator=generator(context.seed, "learning curve"))
        chosen = order[: max(2, len(labels) // divisor)]
        features, labels = draws.take(chosen), labels[chosen]
    options: dict[str, Any] = {}
    if kind.network is not None:
        network = functools.partial(kind.network, clf, settings, *([growth] if kind.grows else []))
        options = {"network": network, "epochs_max": protocol.probe_epochs, "patience": protocol.probe_patience}
    if kind.trained_on_draws:
        # With the batches, the number of steps stays the same, so that a part says what examples are worth, not steps.
        options["batch_size"] = max(2, protocol.probe_batch // divisor)
        options["learning_rate"] = protocol.probe_learning_rate
        options["anneal"], options["epoch_steps"] = protocol.probe_anneal, protocol.probe_epoch_steps
    validation = context.encoded("validation").nuisance, context.labels("validation")
    with context.progress.task(title, options.get("epochs_max", kind.steps)) as task:
        probe = kind.trainer(
            features if kind.trained_on_draws else features[0],
            labels,
            *validation,
            clf.classes,
            seed=context.seed,
            device=clf.device,
            advance=task.advance,
            **options,
        )
    probe.growth = float(growth)
    return probe


def _best_on_validation(probes: Mapping[str, Probe]) -> str:
    return min(probes, key=lambda name: probes[name].validation.cross_entropy_nats)
