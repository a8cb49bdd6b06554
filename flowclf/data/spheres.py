"""The registered data set ``spheres``: two concentric spheres, and the oracle that labels any point."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowclf.argument_types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from flowclf.data.records import RawData, Split
from flowclf.data.seeding import generator, mix_seed
from flowclf.errors import UsageError

_CHUNK = 50_000


@dataclass(frozen=True)
class SpheresOracle:
    """Oracle for the spheres: class 0 inside the decision sphere of radius (R1 + R2) / 2, class 1 outside (paper, example 5).

    Args:
        inner: R1, radius of the inner sphere.
        outer: R2, radius of the outer sphere.

    Raises:
        UsageError: if not 0 < R1 < R2.

    Example:
        >>> oracle = SpheresOracle(inner=1.0, outer=10.0)
        >>> oracle.signed_distance(torch.tensor([[3.0, 4.0], [0.0, 6.0]]))
        tensor([-0.5000,  0.5000])
        >>> oracle(torch.tensor([[3.0, 4.0], [0.0, 6.0]])).argmax(1)
        tensor([0, 1])
    """

    inner: float
    outer: float

    def __post_init__(self) -> None:
        if not 0 < self.inner < self.outer < float("inf"):
            raise UsageError(f"spheres: expected radii 0 < inner < outer, found {self.inner} and {self.outer}")

    @property
    def boundary(self) -> float:
        """Radius of the decision sphere."""
        return (self.inner + self.outer) / 2

    @property
    def radii(self) -> tuple[float, float]:
        """Radii of the classes' spheres, in the order of the classes."""
        return self.inner, self.outer

    def signed_distance(self, x: Tensor) -> Tensor:
        """Signed distance (N,) of points x (N, D) from the decision sphere: negative inside, positive outside."""
        return torch.linalg.vector_norm(x, dim=1) - self.boundary  # type: ignore[no-any-return]

    def __call__(self, x: Tensor) -> Tensor:
        """Compute scores (N, 2) of points x (N, D): minus and plus the signed distance."""
        distance = self.signed_distance(x)
        return torch.stack((-distance, distance), dim=1)


def sphere_chunks(oracle: SpheresOracle, dimension: int, size: int, *, radial_noise: float = 0.0, seed: int = 0) -> Iterator[Split]:
    """Draw points uniformly on the two spheres in lazy chunks of 50 000; point i has class i mod 2.

    Args:
        oracle: oracle that holds the radii.
        dimension: D, at least 2.
        size: total number of points.
        radial_noise: sigma; the radius is R exp(sigma n) with n standard normal.
        seed: random seed for the points.

    Raises:
        UsageError: if the dimension is below 2, the size below 1, or the noise negative.

    Example:
        >>> [len(chunk) for chunk in sphere_chunks(SpheresOracle(1.0, 10.0), dimension=3, size=120_000)]
        [50000, 50000, 20000]
    """
    if dimension < 2 or size < 1 or not radial_noise >= 0:
        raise UsageError(
            "spheres: expected at least 2 dimensions, 1 point and a radial noise of at least 0, "
            f"found {dimension}, {size} and {radial_noise}"
        )
    radii = torch.tensor(oracle.radii)

    def chunk(number: int) -> Split:
        source = generator("spheres", seed, number)
        labels = torch.arange(number * _CHUNK, min(size, (number + 1) * _CHUNK)) % 2
        points = torch.randn(len(labels), dimension, generator=source)
        radius = radii[labels]
        if radial_noise:
            radius = radius * (radial_noise * torch.randn(len(labels), generator=source)).exp()
        points *= (radius / torch.linalg.vector_norm(points, dim=1))[:, None]
        return Split(points, labels)

    return map(chunk, range(math.ceil(size / _CHUNK)))


def sphere_points(oracle: SpheresOracle, dimension: int, size: int, *, radial_noise: float = 0.0, seed: int = 0) -> Split:
    """Draw all points of :func:`sphere_chunks` at once; arguments and errors are the same."""
    chunks = sphere_chunks(oracle, dimension, size, radial_noise=radial_noise, seed=seed)
    points, labels = torch.empty(size, dimension), torch.arange(size) % 2
    for start, chunk in zip(range(0, size, _CHUNK), chunks, strict=True):
        points[start : start + len(chunk)] = chunk.inputs
    return Split(points, labels)


def spheres(
    *,
    dimension: PositiveInt = 100,
    inner: PositiveFloat = 1.0,
    outer: PositiveFloat = 10.0,
    train_size: PositiveInt = 500_000,
    test_size: PositiveInt = 100_000,
    radial_noise: NonNegativeFloat = 0.0,
    points_seed: NonNegativeInt = 0,
) -> RawData:
    """Adversarial spheres: points of R^D on two concentric spheres, half of them on each (paper, section 2 and appendix B.1).

    With radial noise the radius is R exp(radial_noise * n), n standard normal: then the classes have a density, and the outer
    class is still a scaled copy of the inner one.

    Source: J. Gilmer, L. Metz, F. Faghri, S. S. Schoenholz, M. Raghu, M. Wattenberg and I. Goodfellow, Adversarial spheres, 2018,
        https://arxiv.org/abs/1801.02774.

    Args:
        dimension: D, at least 2.
        inner: radius of the first class.
        outer: radius of the second class, larger.
        train_size: points in the training set, including the validation part.
        test_size: points in the test set.
        radial_noise: relative standard deviation of the radius; 0 in the paper.
        points_seed: random seed for the points; not the run's seed, so all runs have the same points.

    Raises:
        UsageError: if not inner < outer, or there are fewer than 2 dimensions.

    Example:
        >>> raw = spheres(dimension=3, train_size=10, test_size=4)
        >>> raw.train.inputs.norm(dim=1)[:4].round(decimals=4).tolist()
        [1.0, 10.0, 1.0, 10.0]
    """
    oracle = SpheresOracle(inner, outer)
    train, test = (
        sphere_points(oracle, dimension, size, radial_noise=radial_noise, seed=mix_seed(part, points_seed))
        for part, size in (("train", train_size), ("test", test_size))
    )
    return RawData(train, test, ("inner", "outer"), oracle)
