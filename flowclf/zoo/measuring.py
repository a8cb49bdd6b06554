"""What a stored model measures on test data, as the run that trained it measured it; and how near it must come again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import flowclf.data
from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.data import DataSet, Split
from flowclf.errors import UsageError
from flowclf.evaluation import ProbeSettings, evaluate
from flowclf.metrics import cross_entropy_nats, encode, error, network_inputs
from flowclf.numerics import evaluating, inverse_error
from flowclf.recipe import Recipe
from flowclf.zoo.schema import DataRecord

if TYPE_CHECKING:
    from flowclf.training import Progress

__all__ = ["PROBE_TOLERANCE", "measure", "probe_error", "test_part", "tolerance"]

_BATCH = 128
_INVERTED = 1000

PROBE_TOLERANCE = 0.02
"""How far the error of a probe that is trained again may be from that of the first, a fraction of 1."""


def test_part(data: DataRecord) -> Split:
    """The data that an entry names, its test part.

    Raises:
        UsageError: a data set that is not registered, or does not take its arguments.
        DataError, ChecksumError, UnreachableError: data that cannot be had.
    """
    return flowclf.data.load(data.name, validation=1, **data.arguments).test


def measure(model: Classifier, test: Split, seed: int, progress: Progress | None = None) -> dict[str, float]:
    """Measure a classifier, in eval mode.

    Args:
        model: invertible or plain.
        test: data of its shape and classes.
        seed: of the dequantisation noise.
        progress: is told how far it is.

    Returns:
        ``test.error`` and ``test.cross_entropy_nats``, and of an invertible one ``test.bits_per_dim`` and
        ``numerics.inverse_error_max`` of the first 1000 inputs; named as in ``results.json``, and the same numbers.

    Raises:
        UsageError: data of another shape.
    """
    expected = model.preprocessing.image_shape
    if tuple(test.inputs.shape[1:]) != tuple(expected):
        raise UsageError(f"the model takes data of shape {tuple(expected)}, found {tuple(test.inputs.shape[1:])}")
    if progress is None:
        return _measure(model, test, seed, lambda n: None)
    with progress.task("measuring", len(test)) as task:
        return _measure(model, test, seed, task.advance)


def _measure(model: Classifier, test: Split, seed: int, advance: Any) -> dict[str, float]:
    labels = test.labels.cpu()
    if isinstance(model, InvertibleClassifier):
        encoded = encode(model, test.inputs, seed=seed, batch_size=_BATCH, advance=advance)
        x = network_inputs(model, test.inputs[:_INVERTED], torch.Generator().manual_seed(seed))
        return {
            "test.error": error(encoded.logits, labels),
            "test.cross_entropy_nats": cross_entropy_nats(encoded.logits, labels),
            "test.bits_per_dim": model.preprocessing.bits_per_dim(encoded.log_prob.double()).mean().item(),
            "numerics.inverse_error_max": inverse_error(model, x).max,
        }
    generator = torch.Generator().manual_seed(seed)
    rows = []
    with evaluating(model):
        for batch in torch.split(test.inputs, _BATCH):
            rows.append(model(network_inputs(model, batch, generator))[0].cpu())
            advance(len(batch))
    logits = torch.cat(rows)
    return {"test.error": error(logits, labels), "test.cross_entropy_nats": cross_entropy_nats(logits, labels)}


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
    section = recipe.data
    validation = int(section.validation) if section.validation >= 1 else section.validation
    data: DataSet = flowclf.data.load(
        section.name, validation=validation, seed=recipe.seed, train_limit=section.train_limit, **section.arguments
    )
    probe = ProbeSettings(**recipe.evaluate.probe.model_dump())
    results = evaluate(model, data, protocol=recipe.evaluate.protocol, seed=recipe.seed, probe=probe, progress=progress)
    return float(results["probe.test_error"])
