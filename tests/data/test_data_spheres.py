"""Spheres: points on them, uniform, drawn anew from their seed; and an oracle that is right everywhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flowclf.data
from flowclf.data import DataSet, SpheresOracle, spheres
from flowclf.data.spheres import sphere_chunks, sphere_points
from flowclf.errors import UsageError

ORACLE = SpheresOracle(1.0, 10.0)


def test_the_defaults_are_the_papers() -> None:
    raw = spheres(train_size=400, test_size=100)
    assert raw.train.inputs.shape == (400, 100)
    assert len(raw.test) == 100
    assert raw.class_names == ("inner", "outer")
    assert raw.oracle == ORACLE


def test_points_lie_on_their_spheres_half_on_each() -> None:
    split = sphere_points(ORACLE, 100, 3001)
    radii = torch.linalg.vector_norm(split.inputs.double(), dim=1)
    torch.testing.assert_close(radii[split.labels == 0], torch.ones(1501, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(radii[split.labels == 1], torch.full((1500,), 10.0, dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.equal(ORACLE(split.inputs).argmax(1), split.labels)


@pytest.mark.parametrize("label", [0, 1])
def test_points_are_uniform(label: int) -> None:
    """Mean 0, covariance R^2 / D I, and any coordinate has the kurtosis 3 D / (D + 2) of a uniform direction."""
    split = sphere_points(ORACLE, 6, 200_000)
    x = split.inputs[split.labels == label] / ORACLE.radii[label]
    torch.testing.assert_close(x.mean(0), torch.zeros(6), rtol=0, atol=0.006)
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(6) / 6, rtol=0, atol=0.004)
    torch.testing.assert_close(36 * x.pow(4).mean(0), torch.full((6,), 3 * 6 / 8), rtol=0.03, atol=0)


def test_radial_noise_is_of_the_logarithm_of_the_radius() -> None:
    split = sphere_points(ORACLE, 100, 40_000, radial_noise=0.1)
    for label, radius in enumerate(ORACLE.radii):
        logs = torch.linalg.vector_norm(split.inputs[split.labels == label], dim=1).log()
        assert logs.mean().item() == pytest.approx(math.log(radius), abs=0.003)
        assert logs.std().item() == pytest.approx(0.1, rel=0.03)
    assert torch.equal(ORACLE(split.inputs).argmax(1), split.labels)


def test_points_come_from_their_seed_alone() -> None:
    first = spheres(dimension=5, train_size=60, test_size=60)
    torch.rand(7)
    again = spheres(dimension=5, train_size=60, test_size=60)
    other = spheres(dimension=5, train_size=60, test_size=60, points_seed=1)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.inputs, again.test.inputs)
    for one, two in [(first.train, other.train), (first.test, other.test), (first.train, first.test)]:
        assert not torch.isclose(one.inputs, two.inputs).all(1).any()


def test_chunks_are_different_and_nothing_global_moves() -> None:
    state = torch.get_rng_state()
    split = sphere_points(ORACLE, 3, 100_004)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(split.inputs[:50_000], split.inputs[50_000:100_000])
    assert torch.allclose(split.inputs[100_000:].norm(dim=1), torch.tensor([1.0, 10.0, 1.0, 10.0]))
    assert torch.unique(split.inputs, dim=0).shape == split.inputs.shape


def test_chunks_together_are_all_the_points_and_are_made_when_asked_for() -> None:
    together = sphere_points(ORACLE, 3, 100_001, radial_noise=0.1, seed=5)
    chunks = list(sphere_chunks(ORACLE, 3, 100_001, radial_noise=0.1, seed=5))
    assert [len(chunk) for chunk in chunks] == [50_000, 50_000, 1]
    assert torch.equal(torch.cat([chunk.inputs for chunk in chunks]), together.inputs)
    assert torch.equal(torch.cat([chunk.labels for chunk in chunks]), together.labels)
    # More points than any memory holds.
    assert len(next(sphere_chunks(ORACLE, 3, 10**15))) == 50_000
    with pytest.raises(UsageError, match="1 point"):
        sphere_chunks(ORACLE, 3, 0)


@given(st.floats(0.01, 100), st.floats(1.01, 100), st.integers(2, 12), st.floats(0, 3), st.integers(0, 99))
def test_the_oracle_goes_by_the_radius(inner: float, ratio: float, dimension: int, factor: float, seed: int) -> None:
    oracle = SpheresOracle(inner, inner * ratio)
    direction = torch.randn(1, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    radius = factor * oracle.boundary
    x = radius * direction / direction.norm()
    distance = oracle.signed_distance(x).item()
    assert distance == pytest.approx(radius - inner * (1 + ratio) / 2, abs=1e-9 * oracle.outer)
    if abs(distance) > 1e-6 * oracle.outer:
        assert oracle(x).argmax(1).item() == (distance > 0)


def test_the_oracle_travels_with_the_data() -> None:
    data = flowclf.data.load("spheres", dimension=4, inner=2.0, outer=3.0, train_size=50, test_size=10, validation=10)
    assert isinstance(data, DataSet)
    assert data.oracle == SpheresOracle(2.0, 3.0)
    assert data.to("cpu").oracle is data.oracle
    assert data.oracle(data.validation.inputs).argmax(1).tolist() == data.validation.labels.tolist()
    assert flowclf.data.load("mnist", train_limit=10).oracle is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inner": 3.0, "outer": 2.0}, "0 < inner < outer, found 3.0 and 2.0"),
        ({"inner": 2.0, "outer": 2.0}, "0 < inner < outer"),
        ({"inner": 0.0}, "0 < inner < outer"),
        ({"inner": -1.0}, "0 < inner < outer"),
        ({"outer": math.inf}, "0 < inner < outer"),
        ({"outer": math.nan}, "0 < inner < outer"),
        ({"dimension": 1}, "at least 2 dimensions.*found 1"),
        ({"train_size": 0}, "1 point"),
        ({"radial_noise": -0.1}, "radial noise of at least 0.*-0.1"),
        ({"radial_noise": math.nan}, "radial noise of at least 0"),
    ],
)
def test_impossible_spheres_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spheres(**{"train_size": 10, "test_size": 10, **arguments})
