"""Evaluating a model: the order of the work. Each metric is declared in :mod:`flowclf.evaluation.metrics` or in a plug-in."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.data import DataSet, Oracle
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.duration import evaluation_seconds
from flowclf.evaluation.encoding import check_fits
from flowclf.evaluation.figure_data import Arrays, figure_arrays
from flowclf.evaluation.metric import Metric, left_out, registered_metrics
from flowclf.modes import evaluating, repeatable
from flowclf.progress import Progress, forecast
from flowclf.settings import ProbeSettings


@dataclass(frozen=True)
class Evaluation:
    """Results, the arrays of :func:`~flowclf.evaluation.figure_data.figure_arrays`, and the classes in the order of the logits."""

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
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a classifier: error and calibration; with an inverse also likelihood, inverse errors, probes and metamers.

    Args:
        clf: used in eval mode, and left in the mode it was in.
        data: data of the classifier's shape and classes. The training part is encoded without augmentation; where the protocol
            trains probes on several draws, all draws but the first have it, and noise of their own. Of data that are all
            test (:meth:`flowclf.data.DataSet.from_test`), everything is measured that needs no training data; the result
            ``evaluation.left_out`` lists the rest.
        protocol: a key of :data:`PROTOCOLS`.
        seed: random seed of the dequantisation noise, the probes, the pairs and the samples.
        oracle: labels the metamers: another classifier, or a function; by default that of the data, if they have one.
        probe: settings of the probes; by default those of the paper's appendix B.2 on all training examples.
        limit: number of test examples to use, with the same fraction of the training and validation data, to save time; see
            :func:`flowclf.evaluation.limiting.limited`. The results then contain ``evaluation.limit``.
        progress: receives updates.

    Returns:
        One flat mapping with dotted keys, as in ``results.json``: errors are fractions of 1, units are in the key, a number that is
        not finite is None. :mod:`flowclf.evaluation.metrics` and every report say what a key means. A plain network has no
        ``numerics.*``, ``probe.*``, ``metamers.*`` and ``planes.*``.

    Raises:
        UsageError: if the protocol is unknown; the limit is below 1; the data have another shape, number or names of classes, an
            empty part (unless they are all test), or a test part of a single class; or the oracle does not fit this classifier.
        FlowclfError: if the classifier's outputs on the data are not finite, or a metric fails; the message names the metric.

    Example:
        >>> import torch, flowclf
        >>> clf = flowclf.build_classifier(input_shape=(4,), nodes=["actnorm", "split_head"], classes=2)
        >>> x, y = torch.randn(60, 4), torch.arange(60) % 2
        >>> data = flowclf.data.DataSet("noise", ("a", "b"), *(flowclf.data.Split(x, y) for _ in range(3)))
        >>> results = evaluate(clf, data)
        >>> results["test.chance_error"]
        0.5
    """
    options: dict[str, Any] = {"protocol": protocol, "seed": seed, "oracle": oracle, "probe": probe, "limit": limit}
    return evaluate_with_artifacts(clf, data, progress=progress, **options).results


def evaluate_with_artifacts(clf: Classifier, data: DataSet, **options: Any) -> Evaluation:
    """As :func:`evaluate`, with the same options, and with the arrays for figures."""
    started = time.perf_counter()
    context = MetricContext(clf, data, **options)
    check_fits(clf, context.data)
    _announce(context)
    with repeatable(clf.device), evaluating(clf):
        results = measure(context)
        arrays = figure_arrays(context)
    _warn_of_inverse(results, clf)
    results["seconds.evaluate"] = round(time.perf_counter() - started, 3)
    return Evaluation(results, arrays, data.class_names)


def _announce(context: MetricContext) -> None:
    """Say in words what an evaluation leaves out, so that no one takes it for a full one."""
    if context.limit is not None:
        sizes = (f"{len(context.splits[name]):,} of {len(getattr(context.whole, name)):,} {name}" for name in context.splits)
        weaker = "; probes find less than with all training examples" if context.has("inverse") and context.has("training") else ""
        because = "; the nuisances of more would not fit in memory" if context.limited_by_memory else ""
        context.progress.message(f"limited evaluation: {', '.join(sizes)} examples{weaker}{because}")
    if context.has("gaps"):
        context.progress.message(f"left out: {left_out(context)}")


def _warn_of_inverse(results: Mapping[str, Any], clf: Classifier) -> None:
    """Warn where the inverse is off by more than half a level of the pixels, or 1 % of continuous data's unit."""
    worst = max((results.get(f"numerics.{name}inverse_error_max") or 0.0 for name in ("", "forward_")), default=0.0)
    bits = clf.preprocessing.bits
    if worst > (0.01 if bits is None else 2.0**-bits):
        warnings.warn(f"the inverse is off by up to {worst:.2g}: metamers and samples are not what they should be", stacklevel=3)


def expected_seconds(clf: Classifier, data: DataSet, **options: Any) -> tuple[float, float]:
    """The shortest and the longest time that :func:`evaluate` with these options would take, seconds, measured on a few inputs."""
    context = MetricContext(clf, data, **options)
    with repeatable(clf.device), evaluating(clf):
        return evaluation_seconds(context, _planned(context))


def measure(context: MetricContext, only: Collection[str] | None = None) -> dict[str, Any]:
    """Compute the metrics that the context's protocol selects and whose needs it meets.

    Args:
        context: the context, its classifier in eval mode.
        only: keys of the results; no others are computed.

    Returns:
        Values by key, in the order of the built-in metrics, keys of one prefix together.

    Raises:
        FlowclfError: if the classifier's outputs are not finite, or a metric fails.
    """
    plan = {key: what for key, what in _planned(context).items() if only is None or key in only}
    forecast(context.progress, "evaluation", lambda: evaluation_seconds(context, plan))
    if isinstance(context.classifier, InvertibleClassifier):
        context.classifier.grid_peak()  # Forgets magnitudes from before this evaluation.
    if only is None:
        context.encode()
    results: dict[str, Any] = {}
    for key, (metric, arguments) in plan.items():
        results |= metric.compute(context, key, *arguments)
    return {key: value for key, value in results.items() if only is None or key in only}


def _planned(context: MetricContext) -> dict[str, tuple[Metric, tuple[str, ...]]]:
    """What is computed, by key, with the further arguments of the metric's function."""
    probes = context.probe_kinds
    plan: dict[str, tuple[Metric, tuple[str, ...]]] = {}
    taken: set[str] = set()
    for metric in registered_metrics():
        names = {metric.name.format(probe=probe): (probe,) for probe in probes} if "{probe}" in metric.name else {metric.name: ()}
        for key, arguments in names.items():
            keys = {key, f"{key}_low", f"{key}_high"} if metric.trials else {key}
            if keys & taken:
                warnings.warn(f"metric '{metric.name}' is left out: another metric has the key '{key}' already", stacklevel=2)
            elif metric.function and context.protocol_name in metric.protocols and all(map(context.has, metric.needs)):
                plan[key] = (metric, arguments)
            taken |= keys
    prefixes = list(dict.fromkeys(key.rpartition(".")[0] for key in plan))
    return dict(sorted(plan.items(), key=lambda item: prefixes.index(item[0].rpartition(".")[0])))
