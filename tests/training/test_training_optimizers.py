"""Optimisers: what they are called, how they step, and what decays."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import nn

from flowclf import InvertibleClassifier, build_classifier, registry
from flowclf.errors import UsageError
from flowclf.training.optimizers import build_optimizer


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
    fast = build_optimizer([modules[0]], modules[0].parameters(), {"name": name, "lr": 0.1, "weight_decay": 0.1})
    groups = [{"params": [modules[1].weight]}, {"params": [modules[1].bias], "weight_decay": 0.0}]
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    plain = type(fast)(groups, lr=0.1, weight_decay=0.1, foreach=False, **momentum)
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


def test_every_optimiser_has_a_test() -> None:
    assert set(registry.optimizers.names()) == {"adamax", "adam", "adamw", "sgd"}


def test_a_class_of_torch_is_an_optimiser(scratch_registries: None) -> None:
    registry.optimizers.register("radam")(torch.optim.RAdam)
    module = nn.Linear(3, 2)
    optimizer = build_optimizer([module], module.parameters(), {"name": "radam", "lr": 1e-2, "weight_decay": 0.1})
    assert type(optimizer) is torch.optim.RAdam
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(1e-2, 0.1), (1e-2, 0.0)]


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
