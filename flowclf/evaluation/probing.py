"""Training of the probes that a protocol selects."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.duration import evaluation_seconds
from flowclf.evaluation.encoding import check_fits
from flowclf.evaluation.probes import Probe, ProbeScore, probe_kinds, score_probe
from flowclf.modes import evaluating, repeatable
from flowclf.progress import forecast
from flowclf.settings import ProbeSettings


@dataclass(frozen=True)
class TrainedProbes:
    """The trained probes of an evaluation by name, in eval mode, with their scores on ``train``, ``validation`` and ``test``.

    The best probe on validation data has the lowest cross-entropy, the best on test data the lowest error; the protocol selects
    one of the two.
    """

    probes: Mapping[str, Probe]
    scores: Mapping[str, Mapping[str, ProbeScore]]
    best_on_validation: str
    best_on_test: str
    selected: str
    train_examples: int


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
        probes = _train(context)
    return probes[_best_on_validation(probes)]


def train_probes(context: MetricContext) -> TrainedProbes:
    """Train and score the probes that the context's protocol selects."""
    probes = _train(context)
    train, test = _features(context, "train"), _features(context, "test")
    scores = {
        name: {"train": score_probe(probe, *train), "validation": probe.validation, "test": score_probe(probe, *test)}
        for name, probe in probes.items()
    }
    on_validation = _best_on_validation(probes)
    on_test = min(scores, key=lambda name: scores[name]["test"].error)
    selected = on_test if context.protocol.selected_on == "test" else on_validation
    return TrainedProbes(probes, scores, on_validation, on_test, selected, len(train[1]))


def _features(context: MetricContext, split: str) -> tuple[Tensor, Tensor]:
    """Nuisances and labels of a split; for training, as many as the settings allow."""
    examples = context.probe_settings.examples if split == "train" else None
    return context.encoded(split).nuisance[:examples], context.labels(split)[:examples]


def _train(context: MetricContext) -> dict[str, Probe]:
    clf, protocol, settings = context.invertible, context.protocol, context.probe_settings
    parts = (*_features(context, "train"), *_features(context, "validation"), clf.classes)
    trained: dict[str, Probe] = {}
    for name, kind in probe_kinds(context.protocol_name, images=len(clf.input_shape) == 3).items():
        options: dict[str, Any] = {}
        if kind.network is not None:
            network = functools.partial(kind.network, clf, settings)
            options = {"network": network, "epochs_max": protocol.probe_epochs, "patience": protocol.probe_patience}
        with context.progress.task(f"probe {name}", options.get("epochs_max", kind.steps)) as task:
            trained[name] = kind.trainer(*parts, seed=context.seed, device=clf.device, advance=task.advance, **options)
    return trained


def _best_on_validation(probes: Mapping[str, Probe]) -> str:
    return min(probes, key=lambda name: probes[name].validation.cross_entropy_nats)
