"""Optimisers and schedules: what they are called, what decays, and their values at given steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from flowclf import InvertibleClassifier, build_classifier
from flowclf.errors import UsageError
from flowclf.training.optimization import OPTIMIZERS, SCHEDULES, build_optimizer, build_schedule


@pytest.mark.parametrize(
    ("specification", "kind", "expected"),
    [
        ({"name": "adamax", "lr": 2e-3}, torch.optim.Adamax, {"lr": 2e-3, "betas": (0.9, 0.999)}),
        ({"name": "adam", "lr": 1e-4, "betas": [0.5, 0.9]}, torch.optim.Adam, {"lr": 1e-4, "betas": (0.5, 0.9)}),
        ({"name": "adamw", "lr": 1e-3, "eps": 1e-6}, torch.optim.AdamW, {"eps": 1e-6}),
        ({"name": "sgd", "lr": 0.1, "momentum": 0.9}, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    ],
)
def test_optimisers_by_name(specification: dict[str, Any], kind: type, expected: dict[str, Any]) -> None:
    module = nn.Linear(3, 2)
    optimizer = build_optimizer([module], module.parameters(), specification)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in expected} == expected


@pytest.mark.parametrize(("name", "way"), [("adam", "fused"), ("adamw", "fused"), ("adamax", "foreach"), ("sgd", "foreach")])
def test_the_fast_step_is_taken_and_is_the_plain_one(name: str, way: str) -> None:
    modules = [nn.Linear(3, 2) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    x = torch.randn(8, 3)
    fast, plain = (
        build_optimizer([module], module.parameters(), {"name": name, "lr": 0.1, "weight_decay": 0.1, **how})
        for module, how in zip(modules, ({}, {"foreach": False}), strict=True)
    )
    assert all(group[way] for group in fast.param_groups)
    assert not any(group[way] for group in plain.param_groups)
    before = modules[0].weight.detach().clone()
    for _ in range(3):
        for module, optimizer in zip(modules, (fast, plain), strict=True):
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(modules[0].weight, modules[1].weight, rtol=0, atol=1e-5)
    assert (modules[0].weight - before).abs().min() > 0.01


def test_every_optimiser_and_schedule_has_a_test() -> None:
    assert set(OPTIMIZERS) == {"adamax", "adam", "adamw", "sgd"}
    assert set(SCHEDULES) == {"constant", "step", "one_cycle", "cosine", "trapezoid"}


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"name": "adamx", "lr": 1e-3}, ["unknown optimizer 'adamx'", "'adamax'"]),
        ({"lr": 1e-3}, ["unknown optimizer 'None'"]),
        ({"name": "adam", "momentum": 0.9}, ["optimizer adam", "momentum"]),
        ({"name": "adam", "lr": -1.0}, ["optimizer adam", "-1"]),
        ({"name": "adam", "betas": [0.9, 1.5]}, ["optimizer adam", "1.5"]),
    ],
)
def test_optimisers_that_cannot_be_are_refused(specification: dict[str, Any], words: list[str]) -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(UsageError) as caught:
        build_optimizer([module], module.parameters(), specification)
    assert all(word in str(caught.value) for word in words)


def test_weight_decay_is_for_the_weights_of_layers_alone() -> None:
    """With no gradient at all, a step shrinks just these; the bijection's own scales, rotations and prior stay."""
    subnet = {"conv": {"width": 4, "normalization": "batch"}}
    nodes = ["squeeze", "actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": subnet}}, "split_head"]
    clf: InvertibleClassifier = tiny.randomize(build_classifier((1, 4, 4), nodes, classes=2))
    before = {name: value.detach().clone() for name, value in clf.named_parameters()}
    optimizer = build_optimizer([clf], clf.parameters(), {"name": "sgd", "lr": 0.5, "weight_decay": 0.1})
    for parameter in clf.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrunk = {name for name, value in clf.named_parameters() if not torch.equal(value, before[name])}
    convolutions = {name for name, module in clf.named_modules() if isinstance(module, nn.Conv2d)}
    assert shrunk == {f"{name}.weight" for name in convolutions}
    assert len(shrunk) == 3
    for name in shrunk:
        torch.testing.assert_close(clf.get_parameter(name).detach(), 0.95 * before[name])


def test_every_parameter_is_in_one_group_and_frozen_ones_in_none() -> None:
    clf = build_classifier((1, 4, 4), ["squeeze", "affine_coupling", "split_head"], classes=2)
    clf.prior.requires_grad_(False)
    optimizer = build_optimizer([clf], clf.parameters(), {"name": "adam", "lr": 1e-3, "weight_decay": 1e-4})
    inside = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(inside) == len(set(inside))
    assert set(inside) == {id(parameter) for parameter in clf.graph.parameters()}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 0.0]


def test_a_group_without_parameters_is_left_out() -> None:
    clf = build_classifier((6,), ["actnorm", "split_head"], classes=2)
    assert len(build_optimizer([clf], clf.parameters(), {"name": "adam"}).param_groups) == 1


half_cosine = 0.5 * (1 + math.cos(math.pi / 4))


@pytest.mark.parametrize(
    ("specification", "values"),
    [
        ({"name": "constant"}, {0: 1.0, 50: 1.0, 99: 1.0}),
        ({"name": "step", "every_epochs": 3, "factor": 0.1}, {0: 1.0, 29: 1.0, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.001}),
        ({"name": "step"}, {0: 1.0, 99: 1.0}),
        ({"name": "cosine"}, {0: 1.0, 25: half_cosine, 50: 0.5, 75: 1 - half_cosine, 100: 0.0, 120: 0.0}),
        (
            {"name": "one_cycle", "peak": 0.5, "start": 0.2},
            {0: 0.2, 25: 0.6, 50: 1.0, 75: 0.5, 100: 0.0, 120: 0.0},
        ),
        ({"name": "one_cycle"}, {0: 0.04, 15: 0.52, 30: 1.0, 65: 0.5, 100: 0.0}),
        ({"name": "one_cycle", "peak": 0.0}, {0: 1.0, 50: 0.5, 100: 0.0}),
        ({"name": "one_cycle", "peak": 1.0}, {0: 0.04, 50: 0.52, 99: 0.99976}),
        ({"name": "trapezoid"}, {0: 1.0, 60: 1.0, 80: 0.5, 90: 0.25, 100: 0.0}),
        ({"name": "trapezoid", "decay": 1.0}, {0: 1.0, 50: 0.5}),
        ({"name": "constant", "warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 99: 1.0}),
        ({"name": "cosine", "warmup_steps": 100}, {0: 0.01, 49: 0.5 * 0.5 * (1 + math.cos(math.pi * 0.49)), 100: 0.0}),
    ],
)
def test_schedules_at_given_steps(specification: dict[str, Any], values: dict[int, float]) -> None:
    """A hundred steps, ten an epoch."""
    schedule = build_schedule(specification, total_steps=100, steps_per_epoch=10)
    for step, value in values.items():
        assert schedule(step) == pytest.approx(value, abs=1e-5), step


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_factors_stay_between_0_and_1(name: str) -> None:
    for total in (1, 2, 7, 100):
        schedule = build_schedule({"name": name}, total_steps=total, steps_per_epoch=3)
        assert all(0 <= schedule(step) <= 1 for step in range(total))
        assert any(schedule(step) > 0 for step in range(total))


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"name": "onecycle"}, ["unknown schedule 'onecycle'", "'one_cycle'"]),
        ({}, ["unknown schedule 'None'"]),
        ({"name": "cosine", "peak": 0.3}, ["schedule cosine", "peak"]),
    ],
)
def test_schedules_that_cannot_be_are_refused(specification: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build_schedule(specification, 100, 10)
    assert all(word in str(caught.value) for word in words)
