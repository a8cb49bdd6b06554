"""Evaluating: what is measured on a classifier, on which data, and what it is called in the results.

The measures themselves are in metrics, numerics, probes and metamers. Results are one flat mapping with dotted keys,
fit for JSON: errors are fractions of 1, units are in the key, and a number that is not finite is None.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.data import DataSet, Oracle, Split
from flowclf.evaluation.encoding import check_fits, classify_all, encode_all
from flowclf.evaluation.figure_data import Arrays, calibration_arrays, evaluation_arrays
from flowclf.evaluation.inverse_error import forward_inverse_error, inverse_error
from flowclf.evaluation.metamers import metamer_statistics
from flowclf.evaluation.metrics import (
    Encoded,
    cross_entropy_nats,
    error,
    error_interval,
    expected_calibration_error,
    network_inputs,
)
from flowclf.evaluation.oracles import oracle_intervals, oracle_results, ready_oracle
from flowclf.evaluation.planes import plane_arrays
from flowclf.evaluation.probing import probe_results
from flowclf.evaluation.protocols import EvaluationProtocol, protocol_named
from flowclf.modes import evaluating, repeatable
from flowclf.settings import ProbeSettings
from flowclf.training.progress import Progress, SilentProgress

__all__ = ["Evaluation", "evaluate", "evaluate_with_artifacts"]

_NUMERICS_IMAGES = 1000
_METAMER_IMAGES = 10_000


@dataclass(frozen=True)
class Evaluation:
    """Results, and the arrays that figures are drawn from.

    Attributes:
        results: as :func:`evaluate` gives them.
        arrays: by figure: ``calibration``; for images ``metamers``, ``interpolations`` and ``samples``, whose pictures are
            uint8, (columns, C, H, W) or (rows, columns, C, H, W); and where the data know the truth ``planes``.
        class_names: of the classes, in the order of the logits.
    """

    results: dict[str, Any]
    arrays: dict[str, Arrays]
    class_names: tuple[str, ...]


def evaluate(
    clf: Classifier,
    data: DataSet,
    *,
    protocol: str = "quick",
    seed: int = 0,
    oracle: Oracle | Classifier | None = None,
    probe: ProbeSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge a classifier: errors and calibration, and with an inverse likelihood, numerics, probes of its nuisances, metamers.

    Args:
        clf: in eval mode throughout; left in the mode it was in.
        data: of the classifier's shape and classes. The training part is encoded without augmentation.
        protocol: a key of :data:`PROTOCOLS`.
        seed: of the dequantisation noise, the probes, the pairs and the samples.
        oracle: judges the metamers: another classifier, or a function; by default that of the data, if they have one.
        probe: what the probes are; by default those of the paper's appendix B.2 on all training examples.
        progress: is told what is going on.

    Returns:
        One flat mapping, as ``results.json`` has it:
        ``{train,validation,test}.error``, ``.cross_entropy_nats``, ``.bits_per_dim`` and ``.examples``;
        ``test.error_low``, ``test.error_high`` (Wilson, 95 %), ``test.chance_error`` (of always naming the most
        frequent class) and ``test.calibration_error``;
        ``numerics.*`` on the first 1000 test inputs: ``inverse_error_max`` and ``_mean`` of x,
        ``forward_inverse_error_max`` of z, the logits of each with the nuisances of the one before; with a stream in fixed point
        also ``grid_peak``, the largest magnitude that it met so far in this evaluation, which must be below 128;
        ``probe.*``: ``probe.test_error``, the lowest of all probes, with ``_low`` and ``_high``; ``probe.name`` is the probe that
        the other errors and cross-entropies are of, in ``full`` the one with the lowest test error, in ``quick`` the one with
        the lowest validation cross-entropy; ``probe.<name>.*`` is of each, ``probe.mutual_information_nats`` the bound of Lemma 9
        by the one chosen on validation data; ``probe.train_examples`` and ``probe.hidden`` say what was trained;
        ``metamers.*`` of the test inputs, or 10 000 of them drawn at random: see :func:`flowclf.metamers.metamer_statistics`;
        the shares of an oracle's answers with ``_low`` and ``_high``, and what it gets wrong itself,
        ``metamers.oracle.test_error`` and, with the noise of dequantisation, ``.noisy_test_error``;
        ``planes.*`` where the data know the truth everywhere: see :func:`flowclf.evaluation.planes.plane_arrays`;
        and what was evaluated, how, and in how many seconds. A plain network has no more than the first three of these lines.

    Raises:
        UsageError: an unknown protocol; data of another shape, number or names of classes; an empty part, or a test part of a
            single class; an oracle that cannot judge this classifier.
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
    return evaluate_with_artifacts(clf, data, protocol=protocol, seed=seed, oracle=oracle, probe=probe, progress=progress).results


def evaluate_with_artifacts(
    clf: Classifier,
    data: DataSet,
    *,
    protocol: str = "quick",
    seed: int = 0,
    oracle: Oracle | Classifier | None = None,
    probe: ProbeSettings | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """As :func:`evaluate`, with the arrays for figures."""
    started = time.perf_counter()
    chosen, progress = protocol_named(protocol), progress or SilentProgress()
    settings = probe or ProbeSettings()
    judge = ready_oracle(data.oracle if oracle is None else oracle, clf)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    check_fits(clf, data)
    results: dict[str, Any] = {"protocol": protocol, "evaluation.seed": seed, "data.name": data.name}
    if clf.preprocessing.bits is not None:
        results["data.bits"] = clf.preprocessing.bits
    results["model.kind"] = clf.kind
    results["model.parameters"] = clf.parameter_count()
    with repeatable(clf.device), evaluating(clf):
        if isinstance(clf, InvertibleClassifier):
            found, arrays = _judge_invertible(clf, data, splits, chosen, settings, judge, seed, progress)
        else:
            found, arrays = _judge_plain(clf, splits, seed, progress)
    results |= found
    results["seconds.evaluate"] = round(time.perf_counter() - started, 3)
    return Evaluation({name: _plain(value) for name, value in results.items()}, arrays, data.class_names)


def _judge_plain(
    clf: Classifier, splits: Mapping[str, Split], seed: int, progress: Progress
) -> tuple[dict[str, Any], dict[str, Arrays]]:
    logits = classify_all(clf, splits, seed, progress)
    labels = {name: split.labels.cpu() for name, split in splits.items()}
    results: dict[str, Any] = {}
    for name in splits:
        results |= _classification(name, logits[name], labels[name])
    results |= _test_only(logits["test"], labels["test"])
    return results, {"calibration": calibration_arrays(logits["test"], labels["test"])}


def _judge_invertible(
    clf: InvertibleClassifier,
    data: DataSet,
    splits: Mapping[str, Split],
    chosen: EvaluationProtocol,
    settings: ProbeSettings,
    oracle: Oracle | None,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Arrays]]:
    clf.grid_peak()  # What was met before is not this evaluation's.
    encoded = encode_all(clf, splits, seed, progress)
    results: dict[str, Any] = {"model.dimensions": clf.dimensions}
    labels = {name: split.labels.cpu() for name, split in splits.items()}
    for name, (logits, _, log_prob) in encoded.items():
        results |= _classification(name, logits, labels[name])
        results[f"{name}.bits_per_dim"] = clf.preprocessing.bits_per_dim(log_prob.double()).mean().item()
    results |= _test_only(encoded["test"].logits, labels["test"])
    results |= _numerics(clf, data.test, encoded["test"], seed)
    of_probes, best = probe_results(clf, chosen, settings, splits, encoded, seed, progress)
    results |= of_probes
    part = data.test.sample(_METAMER_IMAGES, seed)
    x = network_inputs(clf, part.inputs, torch.Generator().manual_seed(seed))
    with progress.task("metamers", chosen.pairs) as task:
        found = metamer_statistics(clf, x, part.labels, pairs=chosen.pairs, seed=seed, oracle=oracle, advance=task.advance)
        results |= oracle_intervals(found, chosen.pairs)
    if oracle is not None:
        with progress.task("oracle", len(data.test)) as task:
            results |= oracle_results(clf, oracle, data.test, seed, task.advance)
    arrays = evaluation_arrays(clf, x, part.labels.to(x.device), encoded["test"], labels["test"], seed)
    if data.oracle is not None:
        # A network's answers mean little away from the data, where most of a plane lies; the truth is known everywhere.
        arrays["planes"], of_planes = plane_arrays(clf, x, part.labels, probe=best, oracle=data.oracle, seed=seed)
        results |= of_planes
    return results, arrays


def _classification(name: str, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    return {
        f"{name}.error": error(logits, labels),
        f"{name}.cross_entropy_nats": cross_entropy_nats(logits, labels),
        f"{name}.examples": len(labels),
    }


def _test_only(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    low, high = error_interval(error(logits, labels), len(labels))
    return {
        "test.error_low": low,
        "test.error_high": high,
        "test.chance_error": 1 - int(torch.bincount(labels).max()) / len(labels),
        "test.calibration_error": expected_calibration_error(logits, labels),
    }


def _numerics(clf: InvertibleClassifier, test: Split, encoded: Encoded, seed: int) -> dict[str, Any]:
    x = network_inputs(clf, test.inputs[:_NUMERICS_IMAGES], torch.Generator().manual_seed(seed))
    logits, nuisance = encoded.logits[:_NUMERICS_IMAGES], encoded.nuisance[:_NUMERICS_IMAGES]
    of_x = inverse_error(clf, x)
    # Recombined, so that z is not simply the image of a test input: it is what metamers ask of the inverse.
    of_z = forward_inverse_error(clf, logits, nuisance.roll(1, dims=0))
    results = {
        "numerics.examples": len(x),
        "numerics.inverse_error_max": of_x.max,
        "numerics.inverse_error_mean": of_x.mean,
        "numerics.forward_inverse_error_max": of_z.max,
    }
    peak = clf.grid_peak()
    return results if peak is None else {**results, "numerics.grid_peak": peak.magnitude}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
