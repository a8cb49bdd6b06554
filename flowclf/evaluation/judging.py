"""Evaluating: what is measured on a classifier, on which data, and what it is called in the results.

The measures themselves are in metrics, numerics, probes and metamers. Results are one flat mapping with dotted keys,
fit for JSON: errors are fractions of 1, units are in the key, and a number that is not finite is None.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet, Oracle, Split
from flowclf.evaluation.artifacts import Arrays, evaluation_arrays
from flowclf.evaluation.encoding import check_fits, encode_all
from flowclf.evaluation.probing import probe_results
from flowclf.evaluation.protocols import ProbeSettings, protocol_named
from flowclf.metamers import metamer_statistics
from flowclf.metrics import (
    Encoded,
    cross_entropy_nats,
    error,
    error_interval,
    expected_calibration_error,
    network_inputs,
)
from flowclf.numerics import evaluating, forward_inverse_error, inverse_error
from flowclf.planes import plane_arrays
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
            uint8, (columns, C, H, W) or (rows, columns, C, H, W); and where there is an oracle ``planes``.
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
    oracle: Oracle | None = None,
    probe: ProbeSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge a classifier: errors, calibration, likelihood, numerics, probes of its nuisances, metamers.

    Args:
        clf: in eval mode throughout; left in the mode it was in.
        data: of the classifier's shape and classes. The training part is encoded without augmentation.
        protocol: a key of :data:`PROTOCOLS`.
        seed: of the dequantisation noise, the probes, the pairs and the samples.
        oracle: judges the metamers; by default that of the data, if they have one.
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
        ``probe.*``: errors and cross-entropies of the probe with the lowest validation cross-entropy, but
        ``probe.test_error`` is the lowest of all probes, ``probe.<name>.test_error`` that of each, and
        ``probe.mutual_information_nats`` the bound of Lemma 9; ``probe.train_examples`` and ``probe.hidden`` say what was trained;
        ``metamers.*`` of the first 10 000 test inputs: see :func:`flowclf.metamers.metamer_statistics`;
        with an oracle ``planes.*``: see :func:`flowclf.planes.plane_arrays`;
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
    return evaluate_with_artifacts(clf, data, protocol=protocol, seed=seed, oracle=oracle, probe=probe, progress=progress).results


def evaluate_with_artifacts(
    clf: InvertibleClassifier,
    data: DataSet,
    *,
    protocol: str = "quick",
    seed: int = 0,
    oracle: Oracle | None = None,
    probe: ProbeSettings | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """As :func:`evaluate`, with the arrays for figures."""
    started = time.perf_counter()
    chosen, progress = protocol_named(protocol), progress or SilentProgress()
    settings, oracle = probe or ProbeSettings(), data.oracle if oracle is None else oracle
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    check_fits(clf, data, splits)
    clf.grid_peak()  # What was met before is not this evaluation's.
    with evaluating(clf):
        encoded = encode_all(clf, splits, seed, progress)
        results: dict[str, Any] = {"protocol": protocol, "evaluation.seed": seed, "data.name": data.name}
        if clf.preprocessing.bits is not None:
            results["data.bits"] = clf.preprocessing.bits
        results["model.parameters"] = clf.parameter_count()
        results["model.dimensions"] = clf.dimensions
        for name, split in splits.items():
            results |= _classification(clf, name, encoded[name], split.labels.cpu())
        results |= _test_only(encoded["test"], data.test.labels.cpu())
        results |= _numerics(clf, data.test, encoded["test"], seed)
        found, best = probe_results(clf, chosen, settings, splits, encoded, seed, progress)
        results |= found
        part = data.test.head(_METAMER_IMAGES)
        x = network_inputs(clf, part.inputs, torch.Generator().manual_seed(seed))
        with progress.task("metamers", chosen.pairs) as task:
            results |= metamer_statistics(clf, x, part.labels, pairs=chosen.pairs, seed=seed, oracle=oracle, advance=task.advance)
        arrays = evaluation_arrays(clf, x, part.labels.to(x.device), encoded["test"], data.test.labels.cpu(), seed)
        if oracle is not None:
            arrays["planes"], of_planes = plane_arrays(clf, x, part.labels, probe=best, oracle=oracle, seed=seed)
            results |= of_planes
    results["seconds.evaluate"] = round(time.perf_counter() - started, 3)
    return Evaluation({name: _plain(value) for name, value in results.items()}, arrays, data.class_names)


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
