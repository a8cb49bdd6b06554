"""What a stored model measures on test data, as the run that trained it measured it; and how near it must come again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

import flowclf.data
from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.data import DataSet
from flowclf.errors import ZooError
from flowclf.evaluation import MetricContext, check_fits, evaluate
from flowclf.evaluation import measure as measured
from flowclf.modes import evaluating, repeatable
from flowclf.recipe import Recipe
from flowclf.recipe.building import build_data, build_probe_settings
from flowclf.signatures.components import component_model
from flowclf.strict_json import first_problem
from flowclf.zoo.schema import DataRecord

if TYPE_CHECKING:
    from flowclf.training import Progress

__all__ = ["PROBE_TOLERANCE", "measure", "probe_error", "test_data", "tolerance"]

_MEASURED = ("test.error", "test.cross_entropy_nats", "test.bits_per_dim", "numerics.inverse_error_max")

PROBE_TOLERANCE = 0.02
"""How far the error of a probe that is trained again may be from that of the first, a fraction of 1."""


def test_data(record: DataRecord) -> DataSet:
    """The data that an entry names, of which the test part is measured on.

    Raises:
        RegistryError: a data set that is not registered.
        ZooError: arguments that it does not take.
        DataError, ChecksumError, UnreachableError: data that cannot be had.
    """
    try:
        section = component_model("datasets", record.name).model_validate(record.arguments)
    except ValidationError as error:
        raise ZooError(f"data set '{record.name}' of an index: {first_problem(error)}") from None
    return flowclf.data.load(record.name, validation=1, **section.arguments)


def measure(model: Classifier, data: DataSet, seed: int, progress: Progress | None = None) -> dict[str, float]:
    """Measure a classifier on the test part of data, in eval mode.

    Args:
        model: invertible or plain.
        data: of its shape and classes.
        seed: of the dequantisation noise.
        progress: is told how far it is.

    Returns:
        ``test.error`` and ``test.cross_entropy_nats``, and of an invertible one ``test.bits_per_dim`` and
        ``numerics.inverse_error_max`` of the first 1000 inputs; named as in ``results.json``, and the same numbers.

    Raises:
        UsageError: data of another shape or number of classes, or without a test part.
        FlowclfError: an output that is not finite.
    """
    check_fits(model, data, ("test",))
    with repeatable(model.device), evaluating(model):
        return measured(MetricContext(model, data, seed=seed, progress=progress), _MEASURED)


def tolerance(metric: str, value: float) -> float:
    """The largest difference to another measurement of the same model that rounding on another machine may make.

    An error has none: it must agree to the image. An inverse error is a maximum over rounding errors and may grow tenfold.

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
        probe=build_probe_settings(recipe),
        progress=progress,
    )
    return float(results["probe.test_error"])
