"""A metric: its name, meaning and unit, when it is computed, and the function that computes it.

``results.json``, the report and the model card use this one object. Any package can add one::

    from torch.nn.functional import one_hot
    from flowclf.evaluation import MetricContext, metric

    @metric("test.brier_score", unit="number", meaning="mean squared distance of the probabilities from the label", card=True)
    def brier_score(context: MetricContext) -> float:
        logits, labels = context.logits("test"), context.labels("test")
        return (logits.softmax(1) - one_hot(labels, logits.shape[1])).square().sum(1).mean().item()

and, in its pyproject.toml, ``[project.entry-points."flowclf.metrics"]`` with ``brier_score = "package.module:brier_score"``. An
entry point may also give a tuple of metrics.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from flowclf import registry
from flowclf.errors import FlowclfError, UsageError
from flowclf.evaluation.context import GAPS, NEEDS, MetricContext, Need
from flowclf.evaluation.interval import error_interval
from flowclf.evaluation.protocols import PROTOCOLS

Unit = Literal["share", "count", "nats", "bits", "seconds", "number", "text", "list"]
"""``share``: a fraction of 1, shown in percent; ``bits``: also bits per dimension; ``number``: in a unit that the meaning says;
``list``: a list of values, or of rows."""

_NAME = re.compile(r"(([a-z0-9_]+|\{probe\})\.)*[a-z0-9_]+")
_ENDS = {"_low": "lower end of the 95 % interval (Wilson)", "_high": "upper end of the 95 % interval (Wilson)"}
_UNITS: dict[str, Unit] = {"error": "share", "_nats": "nats", "bits_per_dim": "bits", "seconds": "seconds"}


@dataclass(frozen=True)
class Metric:
    """A number, or a word, in the results of an evaluation.

    Attributes:
        name: the dotted key in the results. ``probe.{probe}.test_error`` stands for one key per trained probe.
        unit: the unit of the value.
        meaning: a phrase or sentence for the report; may contain ``{probe}``.
        function: computes the value from a :class:`MetricContext` (and the name of the probe, if ``name`` contains ``{probe}``).
            None for a value that only the run that trained the model has, and adds to its results.
        protocols: the protocols that compute it.
        needs: what it requires: ``inverse`` (not a plain network), ``images`` (not continuous data), ``oracle``, ``truth`` (an
            oracle supplied by the data), ``fixed_point`` (a stream on a grid), ``training`` (not data that are all test), ``pairs``
            (test examples of two classes), ``few_classes`` (at most 100), ``many_classes`` (more than 10), ``limit`` (a limited
            evaluation), ``gaps`` (something is left out).
        trials: the number of independent trials of a share, as a function of the context; Wilson's 95 % interval then follows the
            value, as ``<name>_low`` and ``<name>_high``.
        headline: a short title, if it should stand out at the top of the report.
        card: whether a model's card in the zoo shows it.

    Raises:
        UsageError: if the name, a need or a protocol is not valid.
    """

    name: str
    unit: Unit
    meaning: str
    function: Callable[..., Any] | None = None
    protocols: tuple[str, ...] = ("quick", "full")
    needs: tuple[Need, ...] = ()
    trials: Callable[[MetricContext], int] | None = None
    headline: str = ""
    card: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"metric '{self.name}': expected a name of lower-case words with dots, such as test.brier_score")
        for kind, found, valid in (("need", self.needs, NEEDS), ("protocol", self.protocols, PROTOCOLS)):
            for one in set(found) - set(valid):
                raise UsageError(f"metric '{self.name}': unknown {kind} '{one}'{registry.nearest(one, valid)}")

    def compute(self, context: MetricContext, key: str, *arguments: str) -> dict[str, Any]:
        """The value under its key, followed by its interval; a value that is not finite becomes None.

        Raises:
            FlowclfError: if the function fails, or returns anything but a number, a text or None, or, if its unit is ``list``, a
                list; the message names the metric.
        """
        try:
            value = self.function(context, *arguments) if self.function else None
            if isinstance(value, Tensor | np.generic):
                value = value.tolist() if self.unit == "list" else value.item()
            if not isinstance(value, list if self.unit == "list" else int | float | str | None):
                expected = "a list" if self.unit == "list" else "a number, a text or None"
                raise TypeError(f"expected {expected}, found {type(value).__name__}")
            values = {key: value}
            if self.trials is not None and isinstance(value, int | float):
                values |= zip((f"{key}_low", f"{key}_high"), error_interval(value, self.trials(context)), strict=True)
        except FlowclfError as error:
            error.args = (f"metric '{key}': {error}",)
            raise
        except Exception as error:
            raise FlowclfError(f"metric '{key}' failed: {type(error).__name__}: {error}") from error
        return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in values.items()}

    def match(self, key: str) -> re.Match[str] | None:
        """A match if a key of the results is this metric's; its group ``end`` says which end of the interval, if any."""
        pattern = re.escape(self.name).replace(r"\{probe\}", "(?P<probe>[^.]+)")
        match = re.fullmatch(f"{pattern}(?P<end>_low|_high)?", key)
        return None if match is None or (match["end"] and self.trials is None) else match


def metric(name: str, *, unit: Unit, meaning: str, **options: Any) -> Callable[[Callable[..., Any]], Metric]:
    """Decorator that makes a :class:`Metric` of the function that computes it; ``options`` are the other attributes.

    Example:
        >>> @metric("test.confidence", unit="share", meaning="mean probability of the predicted class")
        ... def confidence(context):
        ...     return context.logits("test").softmax(1).max(1).values.mean()
        >>> confidence.name
        'test.confidence'
    """
    return lambda function: Metric(name, unit, meaning, function, **options)


def registered_metrics() -> Iterator[Metric]:
    """All metrics, the built-in ones first. Any that cannot be loaded is left out, with a warning that names it."""
    for name, found in registry.metrics.usable("flowclf"):
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, Metric):
                yield one
            else:
                warnings.warn(f"metric '{name}' is left out: expected a Metric, found {type(one).__name__}", stacklevel=2)


def describe(key: str) -> tuple[Unit, str]:
    """Unit and meaning of a key of the results or of an epoch's row; without a metric, the unit that the key ends with, and ""."""
    for one in registered_metrics():
        match = one.match(key)
        if match is not None:
            return one.unit, _ENDS[match["end"]] if match["end"] else one.meaning.format(**match.groupdict())
    return next((unit for ending, unit in _UNITS.items() if key.endswith(ending)), "number"), ""


def left_out(context: MetricContext) -> str:
    """The groups of results that the data do not allow, with the reasons: ``probe.*, train.* (the data are all test)``."""
    groups: dict[str, list[str]] = {}
    for one in registered_metrics():
        missing = [need for need in one.needs if not context.has(need)]
        if one.function and context.protocol_name in one.protocols and missing and set(missing) <= set(GAPS):
            groups.setdefault(GAPS[missing[0]], []).append(f"{one.name.split('.')[0]}.*")
    return "; ".join(f"{', '.join(sorted(set(names)))} ({reason})" for reason, names in groups.items())
