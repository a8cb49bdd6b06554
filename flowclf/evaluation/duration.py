"""How long an evaluation will take, measured on its first inputs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.draws import draw_count
from flowclf.evaluation.encoding import encode
from flowclf.evaluation.probes import ProbeKind
from flowclf.evaluation.protocols import PATH_STEPS
from flowclf.modes import evaluating

_LARGEST_BATCH = 128
_TRIAL = 512
# Passes per pair of a metamer: two inputs and the metamer encoded, one inverse, and the saved picture encoded.
_PASSES_PER_PAIR = 5
_PASSES_PER_INVERSE = 4
_PASSES_FOR_PICTURES = 400
# A quarter and a half of the examples.
_LEARNING_CURVE = 0.75


def evaluation_seconds(context: MetricContext, keys: Collection[str]) -> tuple[float, float]:
    """The shortest and the longest time that the metrics with these keys will take, seconds.

    The classifier and the oracle are timed on some test inputs, and each probe on one training step. Probes stop early, so the
    longest time has all their epochs, the shortest only as many as it takes to stop; likewise for the sizes to which they grow.
    Leaves no mark on random numbers.
    """
    groups = {key.split(".")[0] for key in keys}
    trained = bool(groups & {"train", "validation", "probe", "planes"})
    clf, test = context.classifier, context.splits["test"]
    passes = sum(len(split) for name, split in context.splits.items() if trained or name == "test")
    passes += _PASSES_PER_INVERSE * context.inverted_examples if "numerics" in groups else 0
    passes += _PASSES_PER_PAIR * context.protocol.pairs + _PASSES_FOR_PICTURES if "metamers" in groups else 0
    passes += PATH_STEPS * context.protocol.paths if "paths" in groups else 0
    passes += context.protocol.samples if "samples" in groups else 0
    if "probe" in groups and isinstance(clf, InvertibleClassifier):
        examples = _probe_examples(context)
        passes += (draw_count(context, examples) - 1) * examples
    some = test.head(_LARGEST_BATCH).loaded().inputs
    seconds = passes * seconds_per_input(clf, some)
    if "metamers" in groups and context.oracle is not None:
        judged = 3 * context.protocol.pairs + 2 * len(test)
        seconds += judged * _oracle_seconds(context, some)
    least = most = seconds
    if "probe" in groups and isinstance(clf, InvertibleClassifier):
        kinds = context.probe_kinds.values()
        times = [_probe_seconds(context, kind) for kind in kinds]
        least, most = (total + sum(column) for total, column in zip((least, most), zip(*times, strict=True), strict=True))
        if context.protocol.probe_curve:
            # The probe of the curve has the size that is best, which is not known.
            least += _LEARNING_CURVE * min(shortest for shortest, _ in times)
            most += _LEARNING_CURVE * max(longest for _, longest in times)
    return least, most


def seconds_per_input(clf: Classifier, inputs: Tensor, *, enough: float = 0.2) -> float:
    """Time of a pass through a classifier in eval mode, divided by the number of inputs, seconds.

    Args:
        clf: the classifier.
        inputs: stored data, as for :func:`flowclf.evaluation.encoding.encode`; the batches grow up to 128 of them.
        enough: time of a batch, seconds, after which no larger one is tried.
    """
    # The first pass includes preparations.
    timed(lambda: encode(clf, inputs[:1]), clf.device)
    size, seconds = 1, 0.0
    while seconds <= enough and size < min(_LARGEST_BATCH, len(inputs)):
        size = min(4 * size, _LARGEST_BATCH, len(inputs))
        # The shorter of two, because a busy machine may delay one of them a hundredfold.
        seconds = min(timed(lambda: encode(clf, inputs[:size], batch_size=size), clf.device) for _ in "ab")  # noqa: B023
    if isinstance(clf, InvertibleClassifier):
        clf.grid_peak()  # Forgets the magnitudes in these passes.
    return seconds / size


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Time that a function takes, with what it starts on the device, seconds."""
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _probe_examples(context: MetricContext) -> int:
    return min(len(context.splits["train"]), context.probe_settings.examples or len(context.splits["train"]))


def _probe_seconds(context: MetricContext, kind: ProbeKind) -> tuple[float, float]:
    clf, protocol, settings = context.invertible, context.protocol, context.probe_settings
    examples = _probe_examples(context)
    trial = min(_TRIAL, examples)
    features = torch.randn(trial, clf.dimensions - clf.classes, generator=torch.Generator().manual_seed(0))
    if kind.network is None:
        total = kind.seconds(features.to(clf.device), examples) if kind.seconds else 0.0
        return total, total
    labels = torch.arange(trial) % clf.classes
    network = functools.partial(kind.network, clf, settings)
    options: dict[str, Any] = {"network": network, "epochs_max": 1, "patience": 1, "device": clf.device}
    passes = 1
    if kind.trained_on_draws:
        options["batch_size"] = protocol.probe_batch
        passes = -(-protocol.probe_epoch_steps // (examples // min(protocol.probe_batch, examples)))
    with torch.random.fork_rng(devices=[]):
        # The first time includes the preparations.
        epoch = min(
            timed(lambda: kind.trainer(features, labels, features[:1], labels[:1], clf.classes, **options), clf.device)
            for _ in "ab"
        )
    seconds = passes * epoch * examples / trial
    # Each next size has twice the parameters and takes about twice as long. The first of them is always tried.
    sizes = [2**power for power in range(protocol.probe_growth.bit_length())] if kind.grows else [1]
    shortest = min(protocol.probe_patience + 1, protocol.probe_epochs)
    return shortest * sum(sizes[:2]) * seconds, protocol.probe_epochs * sum(sizes) * seconds


def _oracle_seconds(context: MetricContext, inputs: Tensor) -> float:
    oracle, shown = context.oracle, inputs.to(context.classifier.device, context.classifier.dtype)
    if oracle is None:
        return 0.0
    images = shown / 255 if context.has("images") else shown
    with evaluating(oracle if isinstance(oracle, torch.nn.Module) else torch.nn.Identity()):
        return timed(lambda: oracle(images), images.device) / len(images)
