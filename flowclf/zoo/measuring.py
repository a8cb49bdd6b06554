"""What a stored model measures on test data, as the run that trained it measured it; and how near it must come again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

import flowclf.data
from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.component_schema.components import component_model
from flowclf.component_schema.sections import check, first_problem
from flowclf.data import DataSet
from flowclf.errors import ZooError
from flowclf.evaluation import MetricContext, check_fits, evaluate
from flowclf.evaluation import measure as measured
from flowclf.modes import evaluating, repeatable
from flowclf.recipe import Recipe
from flowclf.recipe.building import build_data
from flowclf.zoo.schema import DataRecord

if TYPE_CHECKING:
    from flowclf.training import Progress

_MEASURED = ("test.error", "test.cross_entropy_nats", "test.bits_per_dim", "numerics.inverse_error_max")

PROBE_TOLERANCE = 0.02
"""How far the error of a probe that is trained again may be from that of the first, a fraction of 1."""


def test_data(record: DataRecord) -> DataSet:
    """The data that an entry names, for their test part.

    Raises:
        RegistryError: if the data set is not registered.
        ZooError: if it does not take the arguments.
        DataError, ChecksumError, UnreachableError: if the data cannot be read.
    """
    try:
        section = check(component_model("datasets", record.name), record.arguments)
    except ValidationError as error:
        raise ZooError(f"data set '{record.name}' of an index: {first_problem(error)}") from None
    return flowclf.data.load(record.name, validation=1, **section.arguments)


def measure(model: Classifier, data: DataSet, seed: int, progress: Progress | None = None) -> dict[str, float]:
    """Measure a classifier on the test part of data, in eval mode.

    Args:
        model: invertible or plain.
        data: data of the classifier's shape and classes.
        seed: random seed for the dequantisation noise.
        progress: receives how far it is.

    Returns:
        ``test.error`` and ``test.cross_entropy_nats``, and of an invertible one ``test.bits_per_dim`` and
        ``numerics.inverse_error_max`` of the first 1000 inputs; named as in ``results.json``, and the same numbers.

    Raises:
        UsageError: if the data have another shape or number of classes, or no test part.
        FlowclfError: if an output is not finite.
    """
    check_fits(model, data, ("test",))
    with repeatable(model.device), evaluating(model):
        return measured(MetricContext(model, data, seed=seed, progress=progress), _MEASURED)


def tolerance(metric: str, value: float) -> float:
    """The largest difference to another measurement of the same model that rounding on another machine may make.

    An error has none: it must agree to the last image. An inverse error is a maximum over rounding errors and may grow tenfold.

    Example:
        >>> tolerance("test.error", 0.0145), round(tolerance("test.cross_entropy_nats", 0.05), 6)
        (0.0, 0.00015)
    """
    if metric == "test.error":
        return 0.0
    if metric.startswith("numerics."):
        return 9 * abs(value) + 1e-4
    return 1e-4 + 1e-3 * abs(value)


def probe_error(model: InvertibleClassifier, recipe: Recipe, progress: Progress | None = None) -> float:
    """``probe.test_error`` of the recipe's own evaluation, its probes trained again: minutes, not seconds."""
    results = evaluate(
        model,
        build_data(recipe),
        protocol=recipe.evaluate.protocol,
        seed=recipe.seed,
        probe=recipe.evaluate.probe,
        progress=progress,
    )
    return float(results["probe.test_error"])
