"""Planes through inputs, and the decisions of a classifier, a probe of its nuisances and an oracle on them (paper, Figure 3).

Everything is in network inputs, for images as for vectors. :mod:`flowclf.figures.planes` draws it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowclf.data import Oracle
from flowclf.errors import UsageError
from flowclf.evaluation.metamers import draw_pairs, interpolate, metamer
from flowclf.modes import evaluating

if TYPE_CHECKING:
    from flowclf.classifier import InvertibleClassifier

_MARGIN = 1.25
_PAIRS = 100
_STEPS = 41


@dataclass(frozen=True)
class Plane:
    """The plane of the points origin + u e1 + v e2, with orthonormal directions e1 and e2.

    Attributes:
        origin: the point (0, 0), of the inputs' shape.
        first: e1, of the same shape.
        second: e2, of the same shape.

    Example:
        >>> plane = Plane.through(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 3.0, 0.0]))
        >>> plane.coordinates(torch.tensor([[5.0, 6.0, 7.0]]))
        tensor([[5., 6.]])
        >>> plane.points(torch.tensor([[5.0, 6.0]]))
        tensor([[5., 6., 0.]])
    """

    origin: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def through(cls, x1: Tensor, x2: Tensor, origin: Tensor | None = None) -> Plane:
        """The plane through x1, x2 and an origin, by default 0: the subspace that x1 and x2 span. e1 points to x1.

        Args:
            x1: one input, without the batch dimension.
            x2: another.
            origin: a third.

        Raises:
            UsageError: if the shapes differ, or the three points are on one line.
        """
        origin = torch.zeros_like(x1) if origin is None else origin
        if not x1.shape == x2.shape == origin.shape:
            raise UsageError(f"a plane needs inputs of one shape, found {[tuple(x.shape) for x in (x1, x2, origin)]}")
        one, two = (x1 - origin).double(), (x2 - origin).double()
        first = one / one.norm()
        rest = two - (two * first).sum() * first
        if not rest.norm() > 1e-6 * two.norm() or not one.norm() > 0:
            raise UsageError("a plane needs three points that are not on one line")
        return cls(origin, first.to(x1), (rest / rest.norm()).to(x1))

    def points(self, coordinates: Tensor) -> Tensor:
        """Inputs (N, *input_shape) of coordinates (N, 2)."""
        u, v = (part.view(-1, *[1] * self.origin.dim()) for part in coordinates.to(self.origin).unbind(1))
        return self.origin + u * self.first + v * self.second

    def coordinates(self, x: Tensor) -> Tensor:
        """Coordinates (N, 2) of inputs (N, *input_shape), projected onto the plane at a right angle."""
        away = (x - self.origin).flatten(1)
        return torch.stack((away @ self.first.flatten(), away @ self.second.flatten()), dim=1)

    def circle(self, radius: float) -> tuple[float, float, float] | None:
        """Where the sphere around 0 of that radius cuts the plane: (u, v, radius) of a circle, or None."""
        centre = self.coordinates(torch.zeros_like(self.origin)[None])
        height = self.points(centre).norm().item()
        if height >= radius:
            return None
        return centre[0, 0].item(), centre[0, 1].item(), math.sqrt(radius**2 - height**2)

    def grid(self, extent: float, size: int) -> tuple[Tensor, Tensor]:
        """An even grid on the square [-extent, extent]^2.

        Returns:
            The axis (size,), and coordinates (size^2, 2), row by row: v is constant in a row.

        Raises:
            UsageError: if the extent is not positive, or the size is below 2.
        """
        if not extent > 0 or size < 2:
            raise UsageError(f"a grid needs a positive extent and at least 2 points per side, found {extent} and {size}")
        axis = torch.linspace(-extent, extent, size)
        v, u = torch.meshgrid(axis, axis, indexing="ij")
        return axis, torch.stack((u.flatten(), v.flatten()), dim=1)


def scores(
    clf: InvertibleClassifier, x: Tensor, *, probe: nn.Module | None = None, oracle: Oracle | None = None, batch_size: int = 1000
) -> dict[str, NDArray[Any]]:
    """Scores that the classifier, a probe of its nuisances and an oracle give to network inputs, in eval mode.

    Args:
        clf: the classifier.
        x: (N, *input_shape).
        probe: nuisances (B, D-K) -> logits (B, K).
        oracle: see :data:`flowclf.data.Oracle`; called with ``clf.preprocessing.inverse`` of the inputs.
        batch_size: inputs a batch.

    Returns:
        ``classifier``, and ``probe`` and ``oracle`` if given: (N, K) each; the largest score is the decision.
    """
    outputs: dict[str, list[Tensor]] = {}
    # An oracle need not be a module, but one that is must be in eval mode.
    modules = [part for part in (clf, probe, oracle) if isinstance(part, nn.Module)]
    with evaluating(nn.ModuleList(modules)):
        for batch in torch.split(x.to(clf.device, clf.dtype), batch_size):
            logits, nuisance = clf.latents(batch)
            outputs.setdefault("classifier", []).append(logits)
            if probe is not None:
                outputs.setdefault("probe", []).append(probe(nuisance.float()))
            if oracle is not None:
                outputs.setdefault("oracle", []).append(oracle(clf.preprocessing.inverse(batch)))
    return {name: torch.cat(rows).float().cpu().numpy() for name, rows in outputs.items()}


def disagreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Share of points, and so of an even grid's area, at which two arrays of scores (..., K) decide for different classes."""
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
    """The data of Figure 3: the plane of two data points, and that of x and its metamer; and what they show in numbers.

    Of 100 random pairs of different classes one is taken: the first whose metamer is an invariance-based adversarial example
    (definition 3), so that there is something to see; or the first of all if there is none, or no oracle. Both planes go
    through 0, as in the paper. The latent path leads from x to its metamer; all of it has the logits of x.

    Args:
        clf: the classifier.
        x: (N, *input_shape), network inputs.
        labels: (N,) their classes.
        probe: nuisances (B, D-K) -> logits (B, K).
        oracle: see :data:`flowclf.data.Oracle`. If it has ``radii``, of spheres around 0 on which the classes lie, the circles
            in which these cut the planes are given too.
        size: points of the grid per side.
        seed: random seed of the pairs.

    Returns:
        Arrays, each for both planes ``pair.*`` and ``metamer.*``: ``axis`` (size,), ``classifier``, ``probe`` and ``oracle``
        (size, size, K) with v down the rows, ``points`` (2, 2), the coordinates of the two points, ``points_label`` (2,), their
        classes (the metamer's by the oracle; -1 unknown), and ``circles`` (n, 3), u, v and radius. And the path, ``path.points``
        (T, 2), projected onto the second plane, with ``path.classifier``, ``path.probe`` and ``path.oracle`` (T, K).

        Numbers: ``planes.pairs``, ``planes.chosen_pair`` (index of the pair) and ``planes.distance`` (between x and its metamer);
        on the path ``planes.path.classifier_changes``, ``.probe_changes`` and ``.oracle_changes``, how often each decision changes;
        with an oracle ``planes.pair.classifier_disagreement``, ``.probe_disagreement`` and the same of ``planes.metamer``:
        fractions of the area drawn.

    Raises:
        UsageError: if there are fewer than two classes, or the pair spans no plane.
    """
    first, second = (indices.to(x.device) for indices in draw_pairs(labels, _PAIRS, seed=seed))
    with evaluating(clf):
        candidates = metamer(clf, x[first], x[second])
        chosen = _first_adversarial(clf, x[first], candidates, oracle)
        x1, x2, x_met = x[first[chosen]], x[second[chosen]], candidates[chosen]
        path = interpolate(clf, x1[None], x2[None], _STEPS).squeeze(1)
    radii: Sequence[float] = getattr(oracle, "radii", ())
    own, other = int(labels[first[chosen]]), int(labels[second[chosen]])
    metamer_label = None if oracle is None else int(scores(clf, x_met[None], oracle=oracle)["oracle"].argmax())
    planes = {"pair": (Plane.through(x1, x2), x2, other), "metamer": (Plane.through(x1, x_met), x_met, metamer_label)}
    arrays: dict[str, NDArray[Any]] = {}
    numbers: dict[str, Any] = {
        "planes.pairs": _PAIRS,
        "planes.chosen_pair": chosen,
        "planes.distance": (x_met - x1).norm().item(),
    }

    score = functools.partial(scores, clf, probe=probe, oracle=oracle)
    on_path = score(path)
    arrays |= {f"path.{name}": values for name, values in on_path.items()}
    arrays["path.points"] = planes["metamer"][0].coordinates(path).float().cpu().numpy()
    for name, values in on_path.items():
        numbers[f"planes.path.{name}_changes"] = int((np.diff(values.argmax(1)) != 0).sum())
    for name, (plane, end, label) in planes.items():
        marked = plane.coordinates(torch.stack((x1, end)))
        circles = [circle for radius in radii if (circle := plane.circle(radius)) is not None]
        extent = _MARGIN * max(marked.abs().max().item(), *(max(abs(u), abs(v)) + r for u, v, r in circles), 0.0)
        axis, coordinates = plane.grid(extent, size)
        on_points = score(plane.points(coordinates.to(x.device)))
        on_grid = {source: values.reshape(size, size, -1) for source, values in on_points.items()}
        arrays |= {f"{name}.{source}": values for source, values in on_grid.items()}
        arrays[f"{name}.axis"] = axis.numpy()
        arrays[f"{name}.points"] = marked.float().cpu().numpy()
        arrays[f"{name}.points_label"] = np.array([own, -1 if label is None else label])
        arrays[f"{name}.circles"] = np.array(circles, dtype=np.float32).reshape(-1, 3)
        if oracle is not None:
            for source in ("classifier", "probe"):
                numbers[f"planes.{name}.{source}_disagreement"] = disagreement(on_grid[source], on_grid["oracle"])
    return arrays, numbers


def _first_adversarial(clf: InvertibleClassifier, x: Tensor, x_met: Tensor, oracle: Oracle | None) -> int:
    if oracle is None:
        return 0
    before, after = scores(clf, x, oracle=oracle), scores(clf, x_met, oracle=oracle)
    found = (before["classifier"].argmax(1) == after["classifier"].argmax(1)) & (
        before["oracle"].argmax(1) != after["oracle"].argmax(1)
    )
    return int(found.argmax())
