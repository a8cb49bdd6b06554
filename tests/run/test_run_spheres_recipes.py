"""The shipped recipes on spheres, whole: what the paper reports of them, and what independence cross-entropy changes. Minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import flowclf
from flowclf.evaluation.metamers import metamer_statistics
from flowclf.recipe import load
from flowclf.run import run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _all_threads() -> None:
    torch.set_num_threads(2)


def test_cross_entropy_is_perfect_and_blind(tmp_path: Path) -> None:
    result = run(load("spheres-ce"), tmp_path / "run", "cpu")
    results = result.results
    assert (results["train.examples"], results["test.examples"]) == (500_000, 100_000)
    assert results["test.error"] == 0
    assert results["probe.test_error"] <= 1e-4
    assert results["probe.hidden"] == "1000-1000-1000"
    assert results["metamers.logit_change_max"] <= 1e-4
    assert results["metamers.adversarial"] == results["metamers.oracle.donor"] >= 0.5
    assert results["planes.path.classifier_changes"] == 0
    assert results["planes.path.probe_changes"] == results["planes.path.oracle_changes"] == 1
    assert results["seconds.total"] < 480
    clf = flowclf.load(result.folder / "checkpoints" / "final").double()
    data = flowclf.data.load("spheres", train_size=10_000)
    part = data.test.head(10_000)
    precise = metamer_statistics(clf, part.inputs, part.labels, oracle=data.oracle)
    assert precise["metamers.logit_change_max"] <= 1e-9
    assert precise["metamers.adversarial"] >= 0.5


def test_independence_cross_entropy_leaves_the_nuisances_little(tmp_path: Path) -> None:
    results = run(load("spheres-ice"), tmp_path / "run", "cpu").results
    assert results["test.error"] <= 0.001
    assert results["probe.test_error"] >= 0.3
    assert results["metamers.adversarial"] <= 0.01
    assert results["metamers.oracle.logits"] >= 0.99
    assert results["metamers.logit_change_max"] <= 1e-4
