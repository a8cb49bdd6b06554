"""Metrics of a stored model on test data, measured as in the run that trained it, and their tolerances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

import flowclf.data
from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.component_schema.components import component_model
from flowclf.component_schema.sections import check, first_problem
from flowclf.data import DataSet
from flowclf.errors import UsageError, ZooError
from flowclf.evaluation import MetricContext, check_fits, evaluate
from flowclf.evaluation import measure as measured
from flowclf.evaluation.duration import seconds_per_input
from flowclf.modes import evaluating, repeatable
from flowclf.recipe import Recipe
from flowclf.recipe.building import build_data
from flowclf.recipe.places import data_at, data_paths, located_data
from flowclf.zoo.schema import DataRecord

if TYPE_CHECKING:
    from flowclf.training import Progress

_MEASURED = ("test.error", "test.cross_entropy_nats", "test.bits_per_dim", "numerics.inverse_error_max")

PROBE_TOLERANCE = 0.02
"""Largest difference between the errors of two probes that are trained alike, a fraction of 1."""


def test_data(record: DataRecord, *folders: Path, root: Path | None = None) -> DataSet:  # noqa: PT028 - no test
    """Load the data that an entry names, for their test part.

    Args:
        record: the data set and its arguments.
        folders: where relative paths may begin, as for :func:`flowclf.recipe.places.located_data`.
        root: where the data are now, if not where the entry says.

    Raises:
        UsageError: if the data are not at their place, or the data set is not read from a path but a root is given.
        RegistryError: if the data set is not registered.
        ZooError: if its arguments are not valid.
        DataError, ChecksumError, UnreachableError: if the data cannot be read.
    """
    try:
        section = check(component_model("datasets", record.name), record.arguments)
    except ValidationError as error:
        raise ZooError(f"data set '{record.name}' of an index: {first_problem(error)}") from None
    section = located_data(section, *folders) if root is None else data_at(section, record.name, root)
    try:
        return flowclf.data.load(record.name, validation=1, **section.arguments)
    except UsageError as error:
        if all(path is None or path.exists() for path in data_paths(section).values()):
            raise
        raise UsageError(f"{error}; --data-root names where the data are now") from error


def measure(model: Classifier, data: DataSet, seed: int, progress: Progress | None = None) -> dict[str, float]:
    """Measure a classifier on the test part of data, in eval mode; ``seed`` is for the dequantisation noise.

    Returns:
        ``test.error`` and ``test.cross_entropy_nats``, and for an invertible classifier ``test.bits_per_dim`` and
        ``numerics.inverse_error_max`` over the first 1000 inputs; the same numbers as in ``results.json``.

    Raises:
        UsageError: if the data have another shape or number of classes, or no test part.
        FlowclfError: if an output is not finite.
    """
    check_fits(model, data, ("test",))
    with repeatable(model.device), evaluating(model):
        return measured(MetricContext(model, data, seed=seed, progress=progress), _MEASURED)


def expected_seconds(model: Classifier, examples: int) -> float:
    """How long :func:`measure` will take on this many test examples, seconds, measured on a few blank ones."""
    shape, images = model.preprocessing.image_shape, model.preprocessing.bits is not None
    blank = torch.zeros(64, *shape, dtype=torch.uint8 if images else torch.float32)
    inverted = 4 * min(1000, examples) if isinstance(model, InvertibleClassifier) else 0
    return (examples + inverted) * seconds_per_input(model, blank, enough=0.05)


def tolerance(metric: str, value: float) -> float:
    """The largest difference between measurements of one model that rounding on another machine may cause.

    An error must agree exactly. An inverse error is a maximum over rounding errors and may grow tenfold.

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
    """Train the probes of the recipe's evaluation again, which takes minutes, and return ``probe.test_error``."""
    protocol, probe = recipe.evaluate.protocol, recipe.evaluate.probe
    results = evaluate(model, build_data(recipe), protocol=protocol, seed=recipe.seed, probe=probe, progress=progress)
    return float(results["probe.test_error"])
