"""How long an evaluation will take: which work counts, and that measuring it leaves no marks."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from test_evaluation import Oracle, image_classifier, image_data, short_full

from flowclf import registry
from flowclf.evaluation import PROTOCOLS, evaluate, expected_seconds
from flowclf.evaluation import duration as module


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch, step and chunk takes a second."""
    ticks = itertools.count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))


@pytest.mark.usefixtures("clock")
def test_all_work_counts() -> None:
    clf, data = image_classifier(), image_data()
    # A pass of four inputs takes a second: 390 encoded, 4 x 90 inverted, 5 x 1000 pairs, the pictures, and 9 for each of 100 paths.
    passes = (390 + 4 * 90 + 5 * 1000 + 400 + 9 * 100) / 4
    # A trial of a probe has all 240 training examples; it stops after 4 to 15 epochs.
    assert expected_seconds(clf, data) == pytest.approx((passes + 4, passes + 15))
    # The oracle reads 90 test images in a second: those of the test data twice, three of each pair. There are 500 samples.
    judged = (3 * 1000 + 2 * 90) / 90 + 500 / 4
    assert expected_seconds(clf, data, oracle=Oracle()) == pytest.approx((passes + judged + 4, passes + judged + 15))
    few = expected_seconds(clf, data, limit=9)
    assert few[1] < passes / 10


@pytest.mark.usefixtures("clock", "scratch_registries")
def test_draws_sizes_and_the_learning_curve_of_the_full_protocol_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("conv", "residual", "kernel"):
        registry.probes._local[name] = dataclasses.replace(registry.probes.get(name), protocols=())
    clf, data = image_classifier(), image_data()

    def seconds(**changes: Any) -> tuple[float, float]:
        protocol = {"probe_draws": 1, "probe_growth": 1, "probe_curve": False, "probe_epoch_steps": 1} | changes
        monkeypatch.setattr("flowclf.evaluation.context.PROTOCOLS", {"full": dataclasses.replace(PROTOCOLS["full"], **protocol)})
        return expected_seconds(clf, data, protocol="full")

    plain = seconds()
    least, most = PROTOCOLS["full"].probe_patience + 1, PROTOCOLS["full"].probe_epochs

    def more(**changes: Any) -> tuple[float, ...]:
        return tuple(value - before for value, before in zip(seconds(**changes), plain, strict=True))

    assert more(probe_draws=4) == pytest.approx((3 * 240 / 4, 3 * 240 / 4))
    assert more(probe_growth=4) == pytest.approx((2 * least, 6 * most))
    assert more(probe_curve=True) == pytest.approx((0.75 * least, 0.75 * most))
    assert more(probe_epoch_steps=5) == pytest.approx((4 * least, 4 * most))


def test_the_full_protocol_times_every_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    short_full(monkeypatch)
    least, most = expected_seconds(image_classifier(), image_data(), protocol="full")
    assert 0 < least < most


def test_measuring_leaves_no_marks() -> None:
    clf, data = image_classifier().train(), image_data()
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in clf.state_dict().items()}
    expected_seconds(clf, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert clf.training
    assert all(torch.equal(value, weights[name]) for name, value in clf.state_dict().items())
    one = dataclasses.replace(data, test=data.test.take(torch.tensor([0, 1])))
    assert expected_seconds(clf, one)[0] > 0
    assert evaluate(clf, data)["test.examples"] == 90
