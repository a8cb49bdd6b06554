"""Pictures that the inverse makes: whether paths to metamers stay pictures, and whether samples show their class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.errors import UsageError
from flowclf.evaluation.context import MetricContext
from flowclf.evaluation.metamers import draw_pairs, interpolate, quantized
from flowclf.evaluation.metric import Metric
from flowclf.evaluation.protocols import PATH_STEPS
from flowclf.modes import evaluating

_BATCH = 100
_LIMIT = 2.0


def checkerboard_energy(images: Tensor) -> Tensor:
    """Mean square of images (B, C, H, W) at the highest frequency of both axes, (B,).

    An inverted squeeze leaves its errors there, a coefficient (a - b - c + d) / 4 per 2x2 block of pixels. Images of one row or
    column have none.

    Example:
        >>> squares = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 4)[None, None]
        >>> checkerboard_energy(torch.cat((squares, torch.ones_like(squares))))
        tensor([0.2500, 0.0000])
    """
    if min(images.shape[2:]) < 2:
        return images.new_zeros(len(images))
    kernel = images.new_tensor([[0.25, -0.25], [-0.25, 0.25]])
    channels = images.shape[1]
    return functional.conv2d(images, kernel.expand(channels, 1, 2, 2), groups=channels).square().mean((1, 2, 3))


def _broken_paths(context: MetricContext) -> float:
    """Share of paths with a picture whose checkerboards have more than twice the energy of those in any picture of the data."""
    clf, (x, labels) = context.invertible, context.test_sample
    paths = context.protocol.paths
    first, second = draw_pairs(labels, paths, seed=context.seed)
    broken = 0
    with context.progress.task("paths", paths) as task, evaluating(clf):
        largest = max(checkerboard_energy(quantized(clf, part)).max() for part in torch.split(x, 1000))
        for one, two in zip(torch.split(first, _BATCH), torch.split(second, _BATCH), strict=True):
            path = interpolate(clf, x[one].to(clf.device, clf.dtype), x[two].to(clf.device, clf.dtype), PATH_STEPS)
            energy = checkerboard_energy(quantized(clf, path.flatten(0, 1))).view(PATH_STEPS, -1)
            broken += int((energy.max(0).values > _LIMIT * largest.to(energy)).sum())
            task.advance(len(one))
    return broken / paths


def _sampled_class(context: MetricContext) -> float:
    """Share of samples, at 8 bits, in which the oracle sees the class asked for."""
    clf, oracle = context.invertible, context.oracle
    if oracle is None:
        raise UsageError("expected an oracle, found none")
    generator = torch.Generator().manual_seed(context.seed)
    samples = context.protocol.samples
    labels = torch.arange(samples) % clf.classes
    seen = 0
    parts = nn.ModuleList(part for part in (clf, oracle) if isinstance(part, nn.Module))
    with context.progress.task("samples", samples) as task, evaluating(parts):
        for classes in torch.split(labels, _BATCH):
            picture = quantized(clf, clf.sample(len(classes), classes, generator=generator))
            seen += int((oracle(picture).argmax(1).cpu() == classes).sum())
            task.advance(len(classes))
    return seen / samples


def _paths(context: MetricContext) -> int:
    return context.protocol.paths


def _samples(context: MetricContext) -> int:
    return context.protocol.samples


METRICS = (
    Metric("paths.count", "count", "paths from a test image to its metamer", _paths, needs=("inverse", "images", "pairs")),
    Metric(
        "paths.broken",
        "share",
        "paths with a picture whose checkerboards have more than twice the energy of those in any test image",
        _broken_paths,
        needs=("inverse", "images", "pairs"),
        trials=_paths,
    ),
    Metric("samples.count", "count", "samples of the prior given a class", _samples, needs=("inverse", "images", "oracle")),
    Metric(
        "samples.class_8bit",
        "share",
        "samples of the prior given a class that the oracle labels as that class, when saved as 8-bit pictures",
        _sampled_class,
        needs=("inverse", "images", "oracle"),
        trials=_samples,
    ),
)
