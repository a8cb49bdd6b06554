"""Example 6: what is measured on the blind classifier is what geometry predicts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc

from flowclf.data import SpheresOracle, sphere_points
from flowclf.errors import UsageError
from flowclf.evaluation.interval import error_interval
from flowclf.paper.example6 import MisalignedClassifier, example6, moved_outward, predicted_error

ORACLE = SpheresOracle(1.0, 10.0)


def test_in_100_dimensions_it_is_perfect_and_falls_to_chance() -> None:
    found = example6(dimension=100, points=200_000)
    assert found["data.error"] == 0
    assert found["shifted.error"] == 0.5
    assert found["shifted.logit_change_max"] == 0
    assert found["data.error_predicted"] < 1e-25
    assert found["shifted.error_predicted"] == 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_in_3_dimensions_the_error_is_that_of_the_closed_form(seed: int) -> None:
    found = example6(dimension=3, points=200_000, seed=seed)
    # Archimedes: a coordinate of a sphere in 3 dimensions is uniform.
    closed_form = (1 - math.sqrt(1 - 0.55**2)) / 2
    assert closed_form == pytest.approx(0.0824, abs=5e-5)
    assert found["data.error_predicted"] == pytest.approx(closed_form, rel=1e-12)
    assert found["data.error_low"] < closed_form < found["data.error_high"]
    assert found["data.error_high"] - found["data.error_low"] < 0.003
    assert found["shifted.error_low"] < 0.5 + closed_form < found["shifted.error_high"]
    assert found["shifted.logit_change_max"] == 0
    assert (found["data.error_low"], found["data.error_high"]) == error_interval(found["data.error"], 200_000)


@given(st.integers(2, 300), st.floats(0.01, 10), st.floats(1.02, 50))
def test_the_closed_form_is_the_incomplete_beta_function(dimension: int, inner: float, ratio: float) -> None:
    oracle = SpheresOracle(inner, inner * ratio)
    t = (oracle.boundary / oracle.outer) ** 2
    expected = betainc((dimension - 1) / 2, 0.5, t) / 2
    assert predicted_error(dimension, oracle) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_measure_does_not_depend_on_the_chunks_it_is_made_in() -> None:
    """The same 120 000 points, all at once."""
    found = example6(dimension=3, points=120_000, seed=7)
    split = sphere_points(ORACLE, 3, 120_000, seed=7)
    classifier = MisalignedClassifier(ORACLE)
    wrong = (classifier(split.inputs).argmax(1) != split.labels).double().mean().item()
    assert found["data.error"] == pytest.approx(wrong, rel=1e-12)
    assert found["shifted.error"] == pytest.approx(0.5 + wrong, rel=1e-12)


def test_every_inner_point_reaches_the_outer_sphere_unseen() -> None:
    x = sphere_points(ORACLE, 7, 2000).inputs[::2]
    moved = moved_outward(x, 10.0)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((1000,), 10.0))
    assert torch.equal(moved[:, :-1], x[:, :-1])
    assert torch.equal(moved[:, -1].sign(), x[:, -1].sign())
    classifier = MisalignedClassifier(ORACLE)
    assert torch.equal(classifier(moved), classifier(x))
    assert (ORACLE(moved).argmax(1) == 1).all()
    assert (classifier(moved).argmax(1) == 0).all()


def test_what_is_impossible_is_refused() -> None:
    with pytest.raises(UsageError, match="can be moved to radius 1"):
        moved_outward(torch.tensor([[2.0, 0.0]]), 1.0)
    with pytest.raises(UsageError, match="even number of points"):
        example6(points=101)
    with pytest.raises(UsageError, match="at least 2 dimensions, found 1"):
        predicted_error(1, ORACLE)
    with pytest.raises(UsageError, match="0 < inner < outer"):
        example6(inner=10.0, outer=1.0)
