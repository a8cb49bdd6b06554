"""The protocols' probes: which are trained on what, and their results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.evaluation.encoding import check_fits, encode_all
from flowclf.evaluation.metrics import Encoded, error_interval
from flowclf.evaluation.probes import (
    KERNEL_BANDWIDTHS,
    ConvolutionalProbe,
    Probe,
    entropy_nats,
    judge_probe,
    mlp,
    mutual_information_nats,
    train_kernel_probe,
    train_probe,
)
from flowclf.evaluation.protocols import EvaluationProtocol, protocol_named
from flowclf.modes import evaluating, repeatable
from flowclf.settings import ProbeSettings
from flowclf.training.progress import Progress, SilentProgress

__all__ = ["nuisance_probe", "probe_results"]

_NETWORKS: Mapping[str, Callable[[InvertibleClassifier, ProbeSettings], nn.Module]] = {
    "mlp": lambda clf, settings: mlp(clf.dimensions - clf.classes, clf.classes, settings.hidden),
    "conv": lambda clf, settings: ConvolutionalProbe(clf, clf.classes),
}


def nuisance_probe(
    clf: InvertibleClassifier,
    data: DataSet,
    *,
    protocol: str = "quick",
    seed: int = 0,
    probe: ProbeSettings | None = None,
    progress: Progress | None = None,
) -> Probe:
    """Train the nuisance classifier that :func:`evaluate` would judge by, and nothing else.

    Args:
        clf: in eval mode throughout; left in the mode it was in.
        data: of the classifier's shape and classes.
        protocol: a key of :data:`PROTOCOLS`.
        seed: of the dequantisation noise and of the probes.
        probe: what the probes are.
        progress: is told what is going on.

    Returns:
        The probe with the lowest validation cross-entropy, nuisances (B, D-K) -> logits (B, K), in eval mode.

    Raises:
        UsageError: as :func:`evaluate`.
        FlowclfError: as :func:`evaluate`.
    """
    chosen, settings, progress = protocol_named(protocol), probe or ProbeSettings(), progress or SilentProgress()
    train = data.train if settings.examples is None else data.train.head(settings.examples)
    splits = {"train": train, "validation": data.validation}
    check_fits(clf, data, ("train", "validation"))
    labels = {name: split.labels.cpu() for name, split in splits.items()}
    with repeatable(clf.device), evaluating(clf):
        features = {name: part.nuisance for name, part in encode_all(clf, splits, seed, progress).items()}
        probes = _train_probes(clf, chosen, settings, features, labels, seed, progress)
    return min(probes.values(), key=_validation_nats)


def _train_probes(
    clf: InvertibleClassifier,
    chosen: EvaluationProtocol,
    settings: ProbeSettings,
    features: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    seed: int,
    progress: Progress,
) -> dict[str, Probe]:
    """The protocol's probes, by name: of ``features`` and ``labels`` the parts ``train`` and ``validation`` are used."""
    trained: dict[str, Probe] = {}
    for name in chosen.probes:
        if name == "conv" and len(clf.input_shape) != 3:
            continue
        parts = (features["train"], labels["train"], features["validation"], labels["validation"], clf.classes)
        if name == "kernel":
            with progress.task(f"probe {name}", len(KERNEL_BANDWIDTHS)) as task:
                trained[name] = train_kernel_probe(*parts, seed=seed, device=clf.device, advance=task.advance)
            continue
        with progress.task(f"probe {name}", chosen.probe_epochs) as task:
            trained[name] = train_probe(
                *parts,
                network=functools.partial(_NETWORKS[name], clf, settings),
                epochs_max=chosen.probe_epochs,
                patience=chosen.probe_patience,
                seed=seed,
                device=clf.device,
                advance=task.advance,
            )
    return trained


def _validation_nats(probe: Probe) -> float:
    return probe.validation.cross_entropy_nats


def probe_results(
    clf: InvertibleClassifier,
    chosen: EvaluationProtocol,
    settings: ProbeSettings,
    splits: Mapping[str, Split],
    encoded: Mapping[str, Encoded],
    seed: int,
    progress: Progress,
) -> tuple[dict[str, Any], Probe]:
    """Results of the protocol's probes, and the one with the lowest validation cross-entropy."""
    features = {name: part.nuisance for name, part in encoded.items()}
    labels = {name: split.labels.cpu() for name, split in splits.items()}
    features["train"], labels["train"] = features["train"][: settings.examples], labels["train"][: settings.examples]
    trained = _train_probes(clf, chosen, settings, features, labels, seed, progress)
    scores = {
        name: {part: judge_probe(probe, features[part], labels[part]) for part in ("train", "test")}
        for name, probe in trained.items()
    }
    by_validation = min(trained, key=lambda name: _validation_nats(trained[name]))
    by_test = min(trained, key=lambda name: scores[name]["test"].error)
    judge = by_test if chosen.judge == "test" else by_validation
    low, high = error_interval(scores[by_test]["test"].error, len(labels["test"]))
    results = {
        "probe.test_error": scores[by_test]["test"].error,
        "probe.test_error_low": low,
        "probe.test_error_high": high,
        "probe.train_error": scores[judge]["train"].error,
        "probe.validation_error": trained[judge].validation.error,
        "probe.validation_cross_entropy_nats": _validation_nats(trained[judge]),
        "probe.test_cross_entropy_nats": scores[judge]["test"].cross_entropy_nats,
        # A bound chosen by its own value would be biased upwards, so it is always that of the choice on validation data.
        "probe.mutual_information_nats": mutual_information_nats(labels["test"], scores[by_validation]["test"].cross_entropy_nats),
        "probe.entropy_nats": entropy_nats(labels["test"]),
        "probe.epochs": trained[judge].epochs,
        "probe.name": judge,
        "probe.hidden": "-".join(map(str, settings.hidden)),
        "probe.train_examples": len(labels["train"]),
    }
    for name, probe in trained.items():
        results |= {
            f"probe.{name}.train_error": scores[name]["train"].error,
            f"probe.{name}.test_error": scores[name]["test"].error,
            f"probe.{name}.test_cross_entropy_nats": scores[name]["test"].cross_entropy_nats,
            f"probe.{name}.validation_cross_entropy_nats": _validation_nats(probe),
            f"probe.{name}.epochs": probe.epochs,
        }
    return results, trained[by_validation]
