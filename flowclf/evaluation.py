"""Protocols: what is measured on a classifier, on which data, and what it is called in the results.

The measures themselves are in metrics, numerics, probes and metamers. Results are one flat mapping with dotted keys,
fit for JSON: errors are fractions of 1, units are in the key, and a number that is not finite is None.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.errors import FlowclfError, UsageError
from flowclf.metamers import interpolate, metamer, metamer_statistics, quantized
from flowclf.metrics import (
    Encoded,
    cross_entropy_nats,
    encode,
    error,
    error_interval,
    expected_calibration_error,
    network_inputs,
    reliability_bins,
)
from flowclf.numerics import evaluating, forward_inverse_error, inverse_error
from flowclf.probes import (
    ConvolutionalProbe,
    Probe,
    ProbeScore,
    entropy_nats,
    judge_probe,
    mlp,
    mutual_information_nats,
    train_probe,
)
from flowclf.registry import nearest
from flowclf.training.progress import Progress, SilentProgress

__all__ = [
    "PROTOCOLS",
    "Arrays",
    "Evaluation",
    "EvaluationProtocol",
    "evaluate",
    "evaluate_with_artifacts",
    "metamer_pictures",
]

Arrays = dict[str, NDArray[Any]]

_NUMERICS_IMAGES = 1000
_METAMER_IMAGES = 10_000
_COLUMNS = 12
_INTERPOLATION_STEPS = 7
_SAMPLES_A_CLASS = 10


@dataclass(frozen=True)
class EvaluationProtocol:
    """How much work an evaluation is.

    Attributes:
        pairs: metamers.
        probes: names of the probes: ``mlp`` sees the nuisances as a vector, ``conv`` as feature maps.
        probe_epochs: at most so many epochs for each.
        probe_patience: epochs without improvement that end a probe's training.
    """

    pairs: int
    probes: tuple[str, ...]
    probe_epochs: int
    probe_patience: int


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    "quick": EvaluationProtocol(pairs=1000, probes=("mlp",), probe_epochs=15, probe_patience=3),
    "full": EvaluationProtocol(pairs=5000, probes=("mlp", "conv"), probe_epochs=60, probe_patience=5),
}

_PROBES: Mapping[str, Callable[[InvertibleClassifier], nn.Module]] = {
    "mlp": lambda clf: mlp(clf.dimensions - clf.classes, clf.classes),
    "conv": lambda clf: ConvolutionalProbe(clf, clf.classes),
}


@dataclass(frozen=True)
class Evaluation:
    """Results, and the arrays that figures are drawn from.

    Attributes:
        results: as :func:`evaluate` gives them.
        arrays: by figure: ``calibration``, and for images ``metamers``, ``interpolations`` and ``samples``; pictures
            are uint8, (columns, C, H, W) or (rows, columns, C, H, W).
        class_names: of the classes, in the order of the logits.
    """

    results: dict[str, Any]
    arrays: dict[str, Arrays]
    class_names: tuple[str, ...]


def evaluate(
    clf: InvertibleClassifier,
    data: DataSet,
    *,
    protocol: str = "quick",
    seed: int = 0,
    oracle: nn.Module | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge a classifier: errors, calibration, likelihood, numerics, probes of its nuisances, metamers.

    Args:
        clf: in eval mode throughout; left in the mode it was in.
        data: of the classifier's shape and classes. The training part is encoded without augmentation.
        protocol: a key of :data:`PROTOCOLS`.
        seed: of the dequantisation noise, the probes, the pairs and the samples.
        oracle: images (B, C, H, W) in [0, 1] -> logits (B, K); if given, it judges the metamers.
        progress: is told what is going on.

    Returns:
        One flat mapping, as ``results.json`` has it:
        ``{train,validation,test}.error``, ``.cross_entropy_nats``, ``.bits_per_dim`` and ``.examples``;
        ``test.error_low``, ``test.error_high`` (Wilson, 95 %), ``test.chance_error`` (of always naming the most
        frequent class) and ``test.calibration_error``;
        ``numerics.*`` on the first 1000 test inputs: ``inverse_error_max`` and ``_mean`` of x,
        ``forward_inverse_error_max`` of z, the logits of each with the nuisances of the one before;
        ``probe.*``: errors and cross-entropies of the probe with the lowest validation cross-entropy, but
        ``probe.test_error`` is the lowest of all probes, ``probe.<name>.test_error`` that of each, and
        ``probe.mutual_information_nats`` the bound of Lemma 9;
        ``metamers.*`` of the first 10 000 test inputs: see :func:`flowclf.metamers.metamer_statistics`;
        and what was evaluated, how, and in how many seconds.

    Raises:
        UsageError: an unknown protocol; data of another shape or number of classes; an empty part.
        FlowclfError: the classifier's outputs on the data are not finite.

    Example:
        >>> import flowclf
        >>> clf = flowclf.build_classifier(input_shape=(4,), nodes=["actnorm", "split_head"], classes=2)
        >>> x, y = torch.randn(60, 4), torch.arange(60) % 2
        >>> data = flowclf.data.DataSet("noise", ("a", "b"), *(flowclf.data.Split(x, y) for _ in range(3)))
        >>> results = evaluate(clf, data)
        >>> results["test.chance_error"]
        0.5
    """
    return evaluate_with_artifacts(clf, data, protocol=protocol, seed=seed, oracle=oracle, progress=progress).results


def evaluate_with_artifacts(
    clf: InvertibleClassifier,
    data: DataSet,
    *,
    protocol: str = "quick",
    seed: int = 0,
    oracle: nn.Module | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """As :func:`evaluate`, with the arrays for figures."""
    started = time.perf_counter()
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown evaluation protocol '{protocol}'{nearest(protocol, PROTOCOLS)}")
    chosen, progress = PROTOCOLS[protocol], progress or SilentProgress()
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    _check(clf, data, splits)
    with evaluating(clf):
        encoded = _encode_all(clf, splits, seed, progress)
        results: dict[str, Any] = {"protocol": protocol, "evaluation.seed": seed, "data.name": data.name}
        if clf.preprocessing.bits is not None:
            results["data.bits"] = clf.preprocessing.bits
        results["model.parameters"] = clf.parameter_count()
        results["model.dimensions"] = clf.dimensions
        for name, split in splits.items():
            results |= _classification(clf, name, encoded[name], split.labels.cpu())
        results |= _test_only(encoded["test"], data.test.labels.cpu())
        results |= _numerics(clf, data.test, encoded["test"], seed)
        results |= _probe_results(clf, chosen, splits, encoded, seed, progress)
        part = data.test.head(_METAMER_IMAGES)
        x = network_inputs(clf, part.inputs, torch.Generator().manual_seed(seed))
        with progress.task("metamers", chosen.pairs) as task:
            results |= metamer_statistics(clf, x, part.labels, pairs=chosen.pairs, seed=seed, oracle=oracle, advance=task.advance)
        arrays = _artifacts(clf, x, part.labels.to(x.device), encoded["test"], data.test.labels.cpu(), seed)
    results["seconds.evaluate"] = round(time.perf_counter() - started, 3)
    return Evaluation({name: _plain(value) for name, value in results.items()}, arrays, data.class_names)


def metamer_pictures(clf: InvertibleClassifier, x1: Tensor, x2: Tensor) -> Arrays:
    """Metamers of pairs as 8-bit pictures, beside their donors, each with what the classifier calls the picture.

    Args:
        clf: a classifier of images.
        x1: (P, *input_shape), network inputs that give the logits.
        x2: of the same shape; give the nuisances.

    Returns:
        ``logits_of``, ``metamer``, ``nuisance_of``: (P, C, H, W), uint8; and under the same names with ``_prediction``
        the classes (P,) that the classifier gives these pictures.

    Raises:
        UsageError: the shapes differ, or the classifier's data are not images.
    """
    arrays: Arrays = {}
    with evaluating(clf):
        for name, x in (("logits_of", x1), ("metamer", metamer(clf, x1, x2)), ("nuisance_of", x2)):
            images = quantized(clf, x)
            arrays[name] = _pixels(images)
            arrays[f"{name}_prediction"] = clf.latents(clf.preprocessing(images))[0].argmax(1).cpu().numpy()
    return arrays


def _check(clf: InvertibleClassifier, data: DataSet, splits: Mapping[str, Split]) -> None:
    if tuple(data.image_shape) != clf.preprocessing.image_shape or data.classes != clf.classes:
        raise UsageError(
            f"data set '{data.name}' has {data.classes} classes of shape {tuple(data.image_shape)}; "
            f"the classifier takes {clf.classes} of {clf.preprocessing.image_shape}"
        )
    for name, split in splits.items():
        if not len(split):
            raise UsageError(f"data set '{data.name}': expected {name} data to evaluate on, found none")


def _encode_all(clf: InvertibleClassifier, splits: Mapping[str, Split], seed: int, progress: Progress) -> dict[str, Encoded]:
    encoded = {}
    with progress.task("encoding", sum(map(len, splits.values()))) as task:
        for name, split in splits.items():
            encoded[name] = encode(clf, split.inputs, seed=seed, advance=task.advance)
            finite = torch.isfinite(encoded[name].log_prob)
            if not finite.all():
                raise FlowclfError(
                    f"the classifier cannot be evaluated: its outputs are not finite for {int((~finite).sum())} of "
                    f"{len(split)} {name} inputs, the first at index {int(finite.int().argmin())}"
                )
    return encoded


def _classification(clf: InvertibleClassifier, name: str, encoded: Encoded, labels: Tensor) -> dict[str, Any]:
    return {
        f"{name}.error": error(encoded.logits, labels),
        f"{name}.cross_entropy_nats": cross_entropy_nats(encoded.logits, labels),
        f"{name}.bits_per_dim": clf.preprocessing.bits_per_dim(encoded.log_prob.double()).mean().item(),
        f"{name}.examples": len(labels),
    }


def _test_only(encoded: Encoded, labels: Tensor) -> dict[str, Any]:
    low, high = error_interval(error(encoded.logits, labels), len(labels))
    return {
        "test.error_low": low,
        "test.error_high": high,
        "test.chance_error": 1 - int(torch.bincount(labels).max()) / len(labels),
        "test.calibration_error": expected_calibration_error(encoded.logits, labels),
    }


def _numerics(clf: InvertibleClassifier, test: Split, encoded: Encoded, seed: int) -> dict[str, Any]:
    x = network_inputs(clf, test.inputs[:_NUMERICS_IMAGES], torch.Generator().manual_seed(seed))
    logits, nuisance = encoded.logits[:_NUMERICS_IMAGES], encoded.nuisance[:_NUMERICS_IMAGES]
    of_x = inverse_error(clf, x)
    # Recombined, so that z is not simply the image of a test input: it is what metamers ask of the inverse.
    of_z = forward_inverse_error(clf, logits, nuisance.roll(1, dims=0))
    return {
        "numerics.examples": len(x),
        "numerics.inverse_error_max": of_x.max,
        "numerics.inverse_error_mean": of_x.mean,
        "numerics.forward_inverse_error_max": of_z.max,
    }


def _probe_results(
    clf: InvertibleClassifier,
    chosen: EvaluationProtocol,
    splits: Mapping[str, Split],
    encoded: Mapping[str, Encoded],
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    features = {name: part.nuisance for name, part in encoded.items()}
    labels = {name: split.labels.cpu() for name, split in splits.items()}
    trained: dict[str, tuple[Probe, ProbeScore]] = {}
    for name in chosen.probes:
        if name == "conv" and len(clf.input_shape) != 3:
            continue
        with progress.task(f"probe {name}", chosen.probe_epochs) as task:
            probe = train_probe(
                features["train"],
                labels["train"],
                features["validation"],
                labels["validation"],
                clf.classes,
                network=functools.partial(_PROBES[name], clf),
                epochs_max=chosen.probe_epochs,
                patience=chosen.probe_patience,
                seed=seed,
                device=clf.device,
                advance=task.advance,
            )
        trained[name] = (probe, judge_probe(probe, features["test"], labels["test"]))
    best = min(trained, key=lambda name: trained[name][0].validation.cross_entropy_nats)
    probe, test = trained[best]
    train = judge_probe(probe, features["train"], labels["train"])
    return {
        "probe.test_error": min(score.error for _, score in trained.values()),
        "probe.train_error": train.error,
        "probe.validation_error": probe.validation.error,
        "probe.validation_cross_entropy_nats": probe.validation.cross_entropy_nats,
        "probe.test_cross_entropy_nats": test.cross_entropy_nats,
        "probe.mutual_information_nats": mutual_information_nats(labels["test"], test.cross_entropy_nats),
        "probe.entropy_nats": entropy_nats(labels["test"]),
        "probe.epochs": probe.epochs,
        "probe.name": best,
        **{f"probe.{name}.test_error": score.error for name, (_, score) in trained.items()},
    }


def _artifacts(
    clf: InvertibleClassifier, x: Tensor, labels: Tensor, encoded: Encoded, all_labels: Tensor, seed: int
) -> dict[str, Arrays]:
    bins = reliability_bins(encoded.logits, all_labels)
    arrays: dict[str, Arrays] = {"calibration": {name: value.numpy() for name, value in bins._asdict().items()}}
    if clf.preprocessing.bits is None:
        return arrays
    generator = torch.Generator().manual_seed(seed)
    first, second = _pairs_by_class(labels.cpu(), generator)
    pair_labels = {"logits_of_label": labels[first].cpu().numpy(), "nuisance_of_label": labels[second].cpu().numpy()}
    arrays["metamers"] = metamer_pictures(clf, x[first], x[second]) | pair_labels
    path = interpolate(clf, x[first], x[second], _INTERPOLATION_STEPS)
    arrays["interpolations"] = pair_labels | {
        "steps": np.stack([_pixels(quantized(clf, step)) for step in path]),
        "target": _pixels(quantized(clf, x[second])),
    }
    rows = [
        _pixels(quantized(clf, clf.sample(_SAMPLES_A_CLASS, labels=label, generator=generator)))
        for label in range(min(clf.classes, _COLUMNS))
    ]
    arrays["samples"] = {"samples": np.stack(rows)}
    return arrays


def _pairs_by_class(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Up to 12 pairs of different classes: the first of each pair goes through the classes in turn."""
    classes = labels.unique(sorted=True)  # type: ignore[no-untyped-call]
    columns = min(_COLUMNS, max(len(classes), 8))

    def one_of(indices: Tensor) -> Tensor:
        return indices[torch.randint(len(indices), (), generator=generator)]

    own = [classes[column % len(classes)] for column in range(columns)]
    first = [one_of((labels == label).nonzero().flatten()) for label in own]
    second = [one_of((labels != label).nonzero().flatten()) for label in own]
    return torch.stack(first), torch.stack(second)


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    return (255 * images).round().to(torch.uint8).cpu().numpy()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
