"""Planes: geometry that is exact, and what Figure 3 must show of a network trained with cross-entropy on spheres."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import flowclf
from flowclf.architectures.firevnet import firevnet_fc
from flowclf.data import SpheresOracle
from flowclf.errors import UsageError
from flowclf.evaluation import ProbeSettings, nuisance_probe
from flowclf.evaluation.metamers import metamer
from flowclf.evaluation.planes import Plane, disagreement, plane_arrays, scores

Trained = tuple[flowclf.InvertibleClassifier, flowclf.data.DataSet, nn.Module]


def points(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 99), st.sampled_from([(2,), (7,), (1, 4, 4)]))
def test_a_plane_holds_its_points_and_projects_at_a_right_angle(seed: int, shape: tuple[int, ...]) -> None:
    x1, x2, away = points(seed, 3, *shape)
    plane = Plane.through(x1, x2)
    on_it = torch.stack((x1, x2, torch.zeros(shape, dtype=torch.float64)))
    coordinates = plane.coordinates(on_it)
    torch.testing.assert_close(plane.points(coordinates), on_it, rtol=0, atol=1e-9)
    assert coordinates[0, 0].item() == pytest.approx(x1.norm().item())
    assert coordinates[0, 1].item() == pytest.approx(0, abs=1e-9)
    assert (coordinates[0] - coordinates[1]).norm().item() == pytest.approx((x1 - x2).norm().item())
    left_over = (away - plane.points(plane.coordinates(away[None]))[0]).flatten()
    assert (left_over @ plane.first.flatten()).item() == pytest.approx(0, abs=1e-9)
    assert (left_over @ plane.second.flatten()).item() == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 99), st.floats(0.1, 5), st.floats(0, 2 * math.pi))
def test_a_sphere_cuts_a_plane_in_a_circle_of_its_radius(seed: int, radius: float, angle: float) -> None:
    plane = Plane.through(*points(seed, 2, 4))
    on_it = plane.points(torch.tensor([[radius * math.cos(angle), radius * math.sin(angle)]], dtype=torch.float64))
    assert on_it.norm().item() == pytest.approx(radius)


def identity() -> flowclf.InvertibleClassifier:
    return flowclf.build_classifier((3,), ["split_head"], classes=2).eval()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Plane.through(torch.ones(3), 2 * torch.ones(3)), "not on one line"),
        (lambda: Plane.through(torch.zeros(3), torch.ones(3)), "not on one line"),
        (lambda: Plane.through(torch.ones(3), torch.ones(4)), r"one shape, found \[\(3,\), \(4,\)\]"),
        (lambda: plane_arrays(identity(), torch.eye(3), torch.arange(3) % 2, probe=nn.Linear(1, 2), size=1), "at least 2 points"),
    ],
)
def test_what_is_no_plane_or_grid_is_refused(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_disagreement_is_a_share_of_the_area() -> None:
    one, other = np.zeros((2, 5, 3)), np.zeros((2, 5, 3))
    one[..., 0], other[..., 0], other[0, :3, 2] = 1, 1, 2
    assert disagreement(one, other) == 0.3


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A network that cross-entropy has taught to tell spheres in 20 dimensions, and a probe of its nuisances."""
    torch.manual_seed(0)
    data = flowclf.data.load("spheres", dimension=20, train_size=12_000, test_size=2000, validation=2000, batch_size=100)
    clf = flowclf.build_classifier((20,), firevnet_fc(width=16, logit_scale=10.0), classes=2)
    settings = {"optimizer": {"name": "adam", "lr": 1e-3}, "schedule": {"name": "constant"}, "precision": "fp32"}
    flowclf.fit(clf, flowclf.losses.CrossEntropy(), data, epochs=6, **settings)
    return clf, data, nuisance_probe(clf, data, probe=ProbeSettings(hidden=(64, 64)))


@pytest.mark.parametrize("seed", range(3))
def test_from_x_to_its_metamer_the_classifier_stays_while_probe_and_oracle_change(trained: Trained, seed: int) -> None:
    clf, data, probe = trained
    test = data.test
    arrays, numbers = plane_arrays(clf, test.inputs, test.labels, probe=probe, oracle=data.oracle, size=41, seed=seed)
    decisions = {name: arrays[f"path.{name}"].argmax(1) for name in ("classifier", "probe", "oracle")}
    own = arrays["metamer.points_label"][0]
    assert (decisions["classifier"] == own).all()
    assert decisions["probe"][0] == decisions["oracle"][0] == own
    assert decisions["probe"][-1] == decisions["oracle"][-1] == 1 - own
    assert np.abs(arrays["path.classifier"] - arrays["path.classifier"][0]).max() < 1e-4
    assert numbers["planes.path.classifier_changes"] == 0
    assert numbers["planes.path.probe_changes"] == numbers["planes.path.oracle_changes"] == 1
    # The drawn points are those of the path's ends, and the grid says of them what is said of the points.
    np.testing.assert_allclose(arrays["path.points"][[0, -1]], arrays["metamer.points"], atol=1e-3)
    for name, column in (("classifier", [own, own]), ("oracle", [own, 1 - own])):
        cells = [np.abs(arrays["metamer.axis"][:, None] - point).argmin(0) for point in arrays["metamer.points"]]
        assert [arrays[f"metamer.{name}"][v, u].argmax() for u, v in cells] == column
    wrong = numbers["planes.metamer.classifier_disagreement"]
    assert wrong == pytest.approx((arrays["metamer.classifier"].argmax(-1) != arrays["metamer.oracle"].argmax(-1)).mean())
    assert wrong > numbers["planes.metamer.probe_disagreement"]


def test_the_circles_are_those_of_the_spheres_and_the_oracles_disc_lies_between(trained: Trained) -> None:
    clf, data, probe = trained
    arrays, _ = plane_arrays(clf, data.test.inputs, data.test.labels, probe=probe, oracle=data.oracle, size=61)
    for plane in ("pair", "metamer"):
        np.testing.assert_allclose(arrays[f"{plane}.circles"], [[0, 0, 1], [0, 0, 10]], atol=1e-5)
        edge = arrays[f"{plane}.axis"][-1]
        assert edge >= 12.5
        inside = (arrays[f"{plane}.oracle"].argmax(-1) == 0).mean()
        assert inside == pytest.approx(math.pi * 5.5**2 / (2 * edge) ** 2, rel=0.05)
    np.testing.assert_allclose(
        np.linalg.norm(arrays["pair.points"], axis=1), [1, 10][:: 1 - 2 * arrays["pair.points_label"][0]], rtol=1e-5
    )


def test_metamers_of_spheres_are_invariance_based_adversarial_examples(trained: Trained) -> None:
    """Definition 3, measured: the oracle sees the other class, the logits do not move; in float64 to 1e-9."""
    clf, data, _ = trained
    part = data.test.head(2000)
    found = flowclf.evaluation.metamers.metamer_statistics(clf, part.inputs, part.labels, oracle=data.oracle)
    assert found["metamers.logit_change_max"] < 1e-4
    assert found["metamers.prediction_kept"] == 1
    assert found["metamers.oracle.donor"] > 0.5
    assert found["metamers.oracle.donor"] + found["metamers.oracle.logits"] == pytest.approx(1)
    assert found["metamers.oracle.neither"] == 0
    assert found["metamers.adversarial"] == found["metamers.oracle.donor"]
    assert found["metamers.distance_mean"] > 4.5
    precise = flowclf.evaluation.metamers.metamer_statistics(copy.deepcopy(clf).double(), part.inputs, part.labels)
    assert precise["metamers.logit_change_max"] < 1e-9


def test_scores_are_in_eval_mode_and_in_order(trained: Trained) -> None:
    clf, data, probe = trained
    x = data.test.inputs[:50]
    clf.train()
    said = scores(clf, x, probe=probe, oracle=data.oracle, batch_size=7)
    assert clf.training
    clf.eval()
    with torch.no_grad():
        logits, nuisance = clf.latents(x)
    np.testing.assert_allclose(said["classifier"], logits.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(said["probe"], probe(nuisance).detach().numpy(), rtol=1e-4, atol=1e-4)
    assert (said["oracle"].argmax(1) == data.test.labels[:50].numpy()).all()
    assert set(scores(clf, x)) == {"classifier"}


def test_images_have_planes_too_and_need_no_oracle() -> None:
    torch.manual_seed(0)
    clf = flowclf.build_classifier((1, 4, 4), ["squeeze", "actnorm", "affine_coupling", "split_head"], classes=3).eval()
    x, labels = 2 * torch.rand(30, 1, 4, 4) - 1, torch.arange(30) % 3
    arrays, numbers = plane_arrays(clf, x, labels, probe=nn.Linear(13, 3), size=9, seed=1)
    assert arrays["pair.classifier"].shape == (9, 9, 3)
    assert arrays["pair.circles"].shape == (0, 3)
    assert arrays["metamer.points_label"][1] == -1
    assert not any("oracle" in name for name in [*arrays, *numbers])
    assert numbers["planes.chosen_pair"] == 0
    first, second = (index[0] for index in flowclf.evaluation.metamers.draw_pairs(labels, 100, seed=1))
    moved = (metamer(clf, x[first][None], x[second][None]) - x[first]).norm().item()
    assert numbers["planes.distance"] == pytest.approx(moved, rel=1e-4)


def test_without_an_adversarial_metamer_the_first_pair_is_taken() -> None:
    """A classifier whose logits are the oracle's own business: z = x, the oracle reads the logits."""
    clf = flowclf.build_classifier((3,), ["split_head"], classes=2).eval()
    x, labels = points(0, 40, 3).float(), torch.arange(40) % 2
    _, numbers = plane_arrays(clf, x, labels, probe=nn.Linear(1, 2), oracle=lambda inputs: inputs[:, :2], size=5)
    assert numbers["planes.chosen_pair"] == 0
    assert numbers["planes.path.oracle_changes"] == 0
    assert numbers["planes.pair.classifier_disagreement"] == 0


def test_an_oracle_with_radii_needs_nothing_else() -> None:
    clf = flowclf.build_classifier((3,), ["split_head"], classes=2).eval()
    x, labels = points(1, 10, 3).float(), torch.arange(10) % 2
    arrays, _ = plane_arrays(clf, x, labels, probe=nn.Linear(1, 2), oracle=SpheresOracle(0.5, 4.0), size=5)
    assert arrays["pair.circles"][:, 2].tolist() == [0.5, 4.0]
