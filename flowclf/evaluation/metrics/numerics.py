"""Numerics: how exactly the model inverts, on the first 1000 test inputs."""

from __future__ import annotations

from functools import partial

import torch

from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.encoding import network_inputs
from flowclf.evaluation.inverse_error import InverseError, forward_inverse_error, inverse_error
from flowclf.evaluation.metric import Metric


def _examples(context: MetricContext) -> int:
    return min(context.inverted_examples, len(context.labels("test")))


def _of_x(context: MetricContext) -> InverseError:
    part = next(context.data.test.batches(context.inverted_examples))
    x = network_inputs(context.classifier, part.inputs, torch.Generator().manual_seed(context.seed))
    return inverse_error(context.invertible, x)


def _of_z(context: MetricContext) -> InverseError:
    count = context.inverted_examples
    logits, nuisance, _ = context.encoded("test")
    # As in metamers, z recombines logits and nuisances, so that it is not the image of a test input.
    return forward_inverse_error(context.invertible, logits[:count], nuisance[:count].roll(1, dims=0))


def _grid_peak(context: MetricContext) -> float | None:
    # The peak must cover both inverses, also if no other metric needs them.
    context.once(_of_x), context.once(_of_z)
    peak = context.invertible.grid_peak()
    return None if peak is None else peak.magnitude


_of_inverse = partial(Metric, needs=("inverse",))
_PEAK = "largest magnitude in the fixed-point stream, which holds magnitudes below 128"
_OF_X = "largest |F⁻¹(F(x)) − x|, network inputs"
_OF_Z = "largest |F(F⁻¹(z)) − z|, logits of one input with the nuisances of another"

METRICS = (
    _of_inverse("numerics.examples", "count", "test inputs inverted", _examples),
    _of_inverse("numerics.inverse_error_max", "number", _OF_X, lambda context: context.once(_of_x).max, headline="Inverse error"),
    _of_inverse("numerics.inverse_error_mean", "number", "mean |F⁻¹(F(x)) − x|", lambda context: context.once(_of_x).mean),
    _of_inverse("numerics.forward_inverse_error_max", "number", _OF_Z, lambda context: context.once(_of_z).max),
    Metric("numerics.grid_peak", "number", _PEAK, _grid_peak, needs=("inverse", "fixed_point")),
)
