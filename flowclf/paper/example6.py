"""Example 6 of the paper: a classifier that is perfect on the spheres but ignores a coordinate, measured and in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from scipy.special import betainc
from torch import Tensor, nn

from flowclf.data import SpheresOracle, Split, sphere_chunks
from flowclf.errors import UsageError
from flowclf.evaluation.interval import error_interval
from flowclf.progress import shown_progress


class MisalignedClassifier(nn.Module):
    """D(x) = sign(||x_1..d-1|| - (R1 + R2) / 2): classifies by the norm of all coordinates but the last (paper, equation 5).

    Example:
        >>> classifier = MisalignedClassifier(SpheresOracle(1.0, 10.0))
        >>> classifier(torch.tensor([[3.0, 0.0], [3.0, 1000.0]]))
        tensor([[ 2.5000, -2.5000],
                [ 2.5000, -2.5000]])
    """

    def __init__(self, oracle: SpheresOracle) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (N, 2) of points (N, d)."""
        return self.oracle(x[:, :-1])


def moved_outward(x: Tensor, radius: float) -> Tensor:
    """Move points (N, d) along the last coordinate, away from 0, until their norm is ``radius``.

    Raises:
        UsageError: if the other coordinates of a point alone have a larger norm.
    """
    squared = radius**2 - x[:, :-1].double().square().sum(1)
    if (squared < 0).any():
        raise UsageError(f"expected points that can be moved to radius {radius} along the last coordinate, found some that cannot")
    moved = x.clone()
    moved[:, -1] = torch.copysign(squared.sqrt(), x[:, -1].double()).to(x)
    return moved


def predicted_error(dimension: int, oracle: SpheresOracle) -> float:
    r"""Error of the :class:`MisalignedClassifier` on the two spheres, half of the points on each, in closed form.

    Inner points are never misclassified. An outer point is misclassified if x_d^2 > R2^2 - b^2 with b = (R1 + R2) / 2, and
    x_d^2 / R2^2 has the distribution Beta(1/2, (d-1)/2) on the sphere: the error is I_t((d-1)/2, 1/2) / 2 with t = (b / R2)^2 and
    I the regularised incomplete beta function.

    Raises:
        UsageError: if there are fewer than 2 dimensions.

    Example:
        >>> round(predicted_error(3, SpheresOracle(1.0, 10.0)), 6), predicted_error(100, SpheresOracle(1.0, 10.0)) < 1e-25
        (0.082418, True)
    """
    if dimension < 2:
        raise UsageError(f"expected at least 2 dimensions, found {dimension}")
    t, a = (oracle.boundary / oracle.outer) ** 2, (dimension - 1) / 2
    return float(betainc(a, 0.5, t)) / 2


def _reported(chunks: Iterable[Split], points: int) -> Iterator[Split]:
    with shown_progress() as progress, progress.task("points", points) as task:
        for chunk in chunks:
            yield chunk
            task.advance(len(chunk))


def example6(
    *, dimension: int = 100, points: int = 200_000, inner: float = 1.0, outer: float = 10.0, seed: int = 0
) -> dict[str, Any]:
    """Measure the misaligned classifier on the spheres, before and after the shift, beside the closed form.

    The shift moves every inner point along the last coordinate to the outer sphere. The classifier's logits stay, but the oracle
    now labels all points as outer. So half of a balanced set is misclassified, in addition to the earlier errors.

    Args:
        dimension: d, at least 2.
        points: number of points, even, half on each sphere; they are generated and evaluated in chunks.
        inner, outer: radii of the spheres, R1 < R2.
        seed: random seed for the points.

    Returns:
        For ``data`` and ``shifted``: ``.error``, ``.error_low`` and ``.error_high`` (Wilson, 95 %) and ``.error_predicted``;
        ``shifted.logit_change_max``, the largest change of a logit by the shift; and the arguments.

    Raises:
        UsageError: if the number of points is odd; and as for :func:`flowclf.data.sphere_chunks`.

    Example:
        >>> found = example6(dimension=100, points=1000)
        >>> found["data.error"], found["shifted.error"]
        (0.0, 0.5)
    """
    if points % 2:
        raise UsageError(f"expected an even number of points, half on each sphere, found {points}")
    oracle = SpheresOracle(inner, outer)
    classifier = MisalignedClassifier(oracle)
    wrong, logit_change = {"data": 0, "shifted": 0}, 0.0
    for chunk in _reported(sphere_chunks(oracle, dimension, points, seed=seed), points):
        x, shifted, inner_ones = chunk.inputs, chunk.inputs.clone(), chunk.labels == 0
        shifted[inner_ones] = moved_outward(x[inner_ones], outer)
        before, after = classifier(x), classifier(shifted)
        wrong["data"] += int((before.argmax(1) != chunk.labels).sum())
        wrong["shifted"] += int((after.argmax(1) != oracle(shifted).argmax(1)).sum())
        logit_change = max(logit_change, (after - before).abs().max().item())
    predicted = predicted_error(dimension, oracle)
    results: dict[str, Any] = {"dimension": dimension, "points": points, "inner": inner, "outer": outer, "seed": seed}
    for name, expected in (("data", predicted), ("shifted", 0.5 + predicted)):
        found = wrong[name] / points
        low, high = error_interval(found, points)
        values = {"error": found, "error_low": low, "error_high": high, "error_predicted": expected}
        results |= {f"{name}.{key}": value for key, value in values.items()}
    return results | {"shifted.logit_change_max": logit_change}
