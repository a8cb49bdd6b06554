"""The protocols' probes: which are trained on what, and their results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.evaluation.encoding import check_fits, encode_all
from flowclf.evaluation.protocols import EvaluationProtocol, ProbeSettings, protocol_named
from flowclf.metrics import Encoded
from flowclf.probes import ConvolutionalProbe, Probe, entropy_nats, judge_probe, mlp, mutual_information_nats, train_probe
from flowclf.training.progress import Progress, SilentProgress

__all__ = ["nuisance_probe", "probe_results"]

_PROBES: Mapping[str, Callable[[InvertibleClassifier, ProbeSettings], nn.Module]] = {
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
    check_fits(clf, data, splits)
    encoded = encode_all(clf, splits, seed, progress)
    labels = {name: split.labels.cpu() for name, split in splits.items()}
    features = {name: part.nuisance for name, part in encoded.items()}
    return min(_train_probes(clf, chosen, settings, features, labels, seed, progress).values(), key=_validation_nats)


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
        with progress.task(f"probe {name}", chosen.probe_epochs) as task:
            trained[name] = train_probe(
                features["train"],
                labels["train"],
                features["validation"],
                labels["validation"],
                clf.classes,
                network=functools.partial(_PROBES[name], clf, settings),
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
    scores = {name: judge_probe(probe, features["test"], labels["test"]) for name, probe in trained.items()}
    best = min(trained, key=lambda name: _validation_nats(trained[name]))
    probe, test = trained[best], scores[best]
    results = {
        "probe.test_error": min(score.error for score in scores.values()),
        "probe.train_error": judge_probe(probe, features["train"], labels["train"]).error,
        "probe.validation_error": probe.validation.error,
        "probe.validation_cross_entropy_nats": probe.validation.cross_entropy_nats,
        "probe.test_cross_entropy_nats": test.cross_entropy_nats,
        "probe.mutual_information_nats": mutual_information_nats(labels["test"], test.cross_entropy_nats),
        "probe.entropy_nats": entropy_nats(labels["test"]),
        "probe.epochs": probe.epochs,
        "probe.name": best,
        "probe.hidden": "-".join(map(str, settings.hidden)),
        "probe.train_examples": len(labels["train"]),
        **{f"probe.{name}.test_error": score.error for name, score in scores.items()},
    }
    return results, probe
