"""Numerics: how exactly the model inverts, on the first 1000 test inputs."""

from __future__ import annotations

from typing import Any

import torch

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.encoding import network_inputs
from flowclf.evaluation.inverse_error import InverseError, forward_inverse_error, inverse_error
from flowclf.evaluation.metric import Metric, Unit

__all__ = ["METRICS"]

_EXAMPLES = 1000


def _of_inputs(context: MetricContext) -> InverseError:
    inputs = context.data.test.inputs[:_EXAMPLES]
    x = network_inputs(context.classifier, inputs, torch.Generator().manual_seed(context.seed))
    return inverse_error(context.invertible, x)


def _of_latents(context: MetricContext) -> InverseError:
    logits, nuisance, _ = context.encoded("test")
    # Recombined, so that z is not simply the image of a test input: it is what metamers ask of the inverse.
    return forward_inverse_error(context.invertible, logits[:_EXAMPLES], nuisance[:_EXAMPLES].roll(1, dims=0))


def _grid_peak(context: MetricContext) -> float | None:
    context.once(_of_inputs), context.once(_of_latents)
    peak = context.invertible.grid_peak()
    return None if peak is None else peak.magnitude


def _numeric(name: str, unit: Unit, meaning: str, function: Any, **options: Any) -> Metric:
    return Metric(f"numerics.{name}", unit, meaning, function, needs=("inverse",), **options)


METRICS = (
    _numeric("examples", "count", "test inputs that were inverted", lambda c: min(_EXAMPLES, len(c.data.test))),
    _numeric(
        "inverse_error_max",
        "number",
        "largest |F⁻¹(F(x)) − x|, network inputs",
        lambda c: c.once(_of_inputs).max,
        headline="Inverse error",
    ),
    _numeric("inverse_error_mean", "number", "mean |F⁻¹(F(x)) − x|", lambda c: c.once(_of_inputs).mean),
    _numeric(
        "forward_inverse_error_max",
        "number",
        "largest |F(F⁻¹(z)) − z|, logits of one input with the nuisances of another",
        lambda c: c.once(_of_latents).max,
    ),
    Metric(
        "numerics.grid_peak",
        "number",
        "largest magnitude in the fixed-point stream, which holds magnitudes below 128",
        _grid_peak,
        needs=("inverse", "fixed_point"),
    ),
)
