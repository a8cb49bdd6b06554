"""Planes through inputs, and the decisions of a classifier, a probe of its nuisances and an oracle on them (paper, Figure 3).

Everything is in network inputs, for images as for vectors. :mod:`flowclf.figures.planes` draws it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowclf.classifier import InvertibleClassifier
from flowclf.data import Oracle
from flowclf.errors import UsageError
from flowclf.evaluation.metamers import draw_pairs, interpolate, metamer
from flowclf.modes import evaluating

_MARGIN = 1.25
_PAIRS = 100
_STEPS = 41


@dataclass(frozen=True)
class Plane:
    """The plane through 0 of the points u e1 + v e2, with orthonormal directions e1 and e2 of the inputs' shape.

    Example:
        >>> plane = Plane.through(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 3.0, 0.0]))
        >>> plane.coordinates(torch.tensor([[5.0, 6.0, 7.0]]))
        tensor([[5., 6.]])
        >>> plane.points(torch.tensor([[5.0, 6.0]]))
        tensor([[5., 6., 0.]])
    """

    first: Tensor
    second: Tensor

    @classmethod
    def through(cls, x1: Tensor, x2: Tensor) -> Plane:
        """The plane that two inputs, without the batch dimension, span; e1 points to x1.

        Raises:
            UsageError: if the shapes differ, or the inputs and 0 are on one line.
        """
        if x1.shape != x2.shape:
            raise UsageError(f"a plane needs inputs of one shape, found {[tuple(x.shape) for x in (x1, x2)]}")
        one, two = x1.double(), x2.double()
        first = one / one.norm()
        rest = two - (two * first).sum() * first
        if not rest.norm() > 1e-6 * two.norm() or not one.norm() > 0:
            raise UsageError("a plane needs two inputs that are not on one line with 0")
        return cls(first.to(x1), (rest / rest.norm()).to(x1))

    def points(self, coordinates: Tensor) -> Tensor:
        """Inputs (N, *input_shape) of coordinates (N, 2)."""
        u, v = (part.view(-1, *[1] * self.first.dim()) for part in coordinates.to(self.first).unbind(1))
        return u * self.first + v * self.second

    def coordinates(self, x: Tensor) -> Tensor:
        """Coordinates (N, 2) of the orthogonal projections of inputs (N, *input_shape)."""
        return torch.stack((x.flatten(1) @ self.first.flatten(), x.flatten(1) @ self.second.flatten()), dim=1)


def scores(
    clf: InvertibleClassifier, x: Tensor, *, probe: nn.Module | None = None, oracle: Oracle | None = None, batch_size: int = 1000
) -> dict[str, NDArray[Any]]:
    """Scores of the classifier, a probe of its nuisances and an oracle for network inputs (N, *input_shape), in eval mode.

    The probe maps nuisances (B, D-K) to logits (B, K); the oracle, see :data:`flowclf.data.Oracle`, receives
    ``clf.preprocessing.inverse`` of the inputs.

    Returns:
        ``classifier``, and ``probe`` and ``oracle`` if given: (N, K) each; the largest score is the decision.
    """
    outputs: dict[str, list[Tensor]] = {}
    # An oracle need not be a module, but one that is must be in eval mode.
    with evaluating(nn.ModuleList(part for part in (clf, probe, oracle) if isinstance(part, nn.Module))):
        for batch in torch.split(x.to(clf.device, clf.dtype), batch_size):
            logits, nuisance = clf.latents(batch)
            outputs.setdefault("classifier", []).append(logits)
            if probe is not None:
                outputs.setdefault("probe", []).append(probe(nuisance.float()))
            if oracle is not None:
                outputs.setdefault("oracle", []).append(oracle(clf.preprocessing.inverse(batch)))
    return {name: torch.cat(rows).float().cpu().numpy() for name, rows in outputs.items()}


def disagreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Fraction of points at which the decisions of two arrays of scores (..., K) differ; on an even grid also of its area."""
    return float((one.argmax(-1) != other.argmax(-1)).mean())


def plane_arrays(
    clf: InvertibleClassifier,
    x: Tensor,
    labels: Tensor,
    *,
    probe: nn.Module,
    oracle: Oracle | None = None,
    size: int = 201,
    seed: int = 0,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The data of Figure 3: the plane of two data points, and that of x and its metamer; and the numbers that they show.

    Of 100 random pairs of different classes, the first whose metamer is an invariance-based adversarial example (definition 3) is
    selected; or the first of all if there is none, or no oracle. Both planes go through 0, as in the paper. All of the latent
    path from x to its metamer has the logits of x.

    Args:
        clf: the classifier.
        x: (N, *input_shape), network inputs.
        labels: (N,) their classes.
        probe: nuisances (B, D-K) -> logits (B, K).
        oracle: see :data:`flowclf.data.Oracle`. If it has ``radii``, of spheres around 0 on which the classes lie, the circles in
            which these cut the planes are included.
        size: points of the grid per side, at least 2.
        seed: random seed of the pairs.

    Returns:
        Arrays, each for both planes ``pair.*`` and ``metamer.*``: ``axis`` (size,), ``classifier``, ``probe`` and ``oracle``
        (size, size, K) with v down the rows, ``points`` (2, 2), the coordinates of the two points, ``points_label`` (2,), their
        classes (the metamer's by the oracle; -1 unknown), and ``circles`` (n, 3), u, v and radius. And the path, ``path.points``
        (T, 2), projected onto the second plane, with ``path.classifier``, ``path.probe`` and ``path.oracle`` (T, K).

        Numbers: the values of :mod:`flowclf.evaluation.metrics.planes`; without an oracle those that do not compare with it.

    Raises:
        UsageError: if there are fewer than two classes, the grid is too small, or the pair spans no plane.
    """
    if size < 2:
        raise UsageError(f"a grid needs at least 2 points per side, found {size}")
    first, second = (indices.to(x.device) for indices in draw_pairs(labels, _PAIRS, seed=seed))
    with evaluating(clf):
        candidates = metamer(clf, x[first], x[second])
        chosen = _first_adversarial(clf, x[first], candidates, oracle)
        x1, x2, x_met = x[first[chosen]], x[second[chosen]], candidates[chosen]
        path = interpolate(clf, x1[None], x2[None], _STEPS).squeeze(1)
    own, other = int(labels[first[chosen]]), int(labels[second[chosen]])
    metamer_label = -1 if oracle is None else int(scores(clf, x_met[None], oracle=oracle)["oracle"].argmax())
    planes = {"pair": (Plane.through(x1, x2), x2, other), "metamer": (Plane.through(x1, x_met), x_met, metamer_label)}
    radii: Sequence[float] = getattr(oracle, "radii", ())
    score = functools.partial(scores, clf, probe=probe, oracle=oracle)

    on_path = score(path)
    arrays: dict[str, NDArray[Any]] = {f"path.{name}": values for name, values in on_path.items()}
    arrays["path.points"] = planes["metamer"][0].coordinates(path).float().cpu().numpy()
    numbers: dict[str, Any] = {
        "planes.pairs": _PAIRS,
        "planes.chosen_pair": chosen,
        "planes.distance": (x_met - x1).norm().item(),
    }
    for name, values in on_path.items():
        numbers[f"planes.path.{name}_changes"] = int((np.diff(values.argmax(1)) != 0).sum())
    for name, (plane, end, label) in planes.items():
        marked = plane.coordinates(torch.stack((x1, end)))
        extent = _MARGIN * max(marked.abs().max().item(), *radii, 0.0)
        axis = torch.linspace(-extent, extent, size)
        # Row by row, with v constant in a row.
        on_points = score(plane.points(torch.cartesian_prod(axis, axis).flip(1).to(x.device)))
        on_grid = {source: values.reshape(size, size, -1) for source, values in on_points.items()}
        arrays |= {f"{name}.{source}": values for source, values in on_grid.items()}
        arrays[f"{name}.axis"] = axis.numpy()
        arrays[f"{name}.points"] = marked.float().cpu().numpy()
        arrays[f"{name}.points_label"] = np.array([own, label])
        # A plane through 0 cuts a sphere around 0 in a circle of the same radius.
        arrays[f"{name}.circles"] = np.array([(0, 0, radius) for radius in radii], dtype=np.float32).reshape(-1, 3)
        if oracle is not None:
            for source in ("classifier", "probe"):
                numbers[f"planes.{name}.{source}_disagreement"] = disagreement(on_grid[source], on_grid["oracle"])
    return arrays, numbers


def _first_adversarial(clf: InvertibleClassifier, x: Tensor, x_met: Tensor, oracle: Oracle | None) -> int:
    if oracle is None:
        return 0
    before, after = (
        {name: values.argmax(1) for name, values in scores(clf, inputs, oracle=oracle).items()} for inputs in (x, x_met)
    )
    return int(((before["classifier"] == after["classifier"]) & (before["oracle"] != after["oracle"])).argmax())
