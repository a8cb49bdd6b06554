"""The moving average: parameters are averaged, all else is copied, and the module gets its own weights back."""

from __future__ import annotations

import copy

import FrEIA.modules as fm
import pytest
import torch
from torch import nn

from flowclf import build_classifier, registry
from flowclf.training.ema import MovingAverage


def test_the_average_is_the_recurrence() -> None:
    module = nn.Linear(2, 1, bias=False)
    average = MovingAverage(module, 0.6)
    expected = module.weight.detach().clone()
    for update in range(1, 30):
        module.weight.data.add_(torch.randn(1, 2))
        average.update()
        decay = min(0.6, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    torch.testing.assert_close(average.average["weight"], expected)
    assert average.updates == 29


def test_buffers_are_copied_as_they_are() -> None:
    module = nn.BatchNorm1d(3)
    average = MovingAverage(module, 0.9)
    module(torch.randn(20, 3))
    average.update()
    for name, value in module.named_buffers():
        assert torch.equal(average.average[name], value)
    assert average.average["num_batches_tracked"] == 1


def test_integer_parameters_are_not_averaged(scratch_registries: None) -> None:
    """FrEIA keeps a permutation as a parameter."""
    registry.nodes.register("shuffle")(fm.PermuteRandom)
    clf = build_classifier((7,), [{"shuffle": {"seed": 2}}, "affine_coupling", "split_head"], classes=2)
    average = MovingAverage(clf, 0.5)
    for _ in range(3):
        average.update()
    for name, parameter in clf.named_parameters():
        if not parameter.is_floating_point():
            assert torch.equal(average.average[name], parameter)
    with average.applied():
        clf(torch.randn(2, 7))


def test_a_module_that_is_used_twice_has_one_average() -> None:
    shared = nn.Linear(2, 2)
    module = nn.Sequential(shared, shared)
    average = MovingAverage(module, 0.5)
    start = shared.weight.detach().clone()
    shared.weight.data.add_(1.0)
    average.update()
    assert torch.equal(average.average["0.weight"], average.average["1.weight"])
    with average.applied():
        torch.testing.assert_close(shared.weight.detach(), start + 9 / 11)


def test_the_weights_come_back_after_the_block_even_when_it_fails() -> None:
    module = nn.Linear(2, 2)
    average = MovingAverage(module, 0.5)
    module.weight.data.add_(1.0)
    average.update()
    kept = copy.deepcopy(module.state_dict())

    def fail() -> None:
        with average.applied():
            assert torch.equal(module.weight, average.average["weight"])
            assert not torch.equal(module.weight, kept["weight"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(module.weight, kept["weight"])


def test_the_average_is_not_the_weights_in_disguise() -> None:
    module = nn.Linear(2, 2)
    average = MovingAverage(module, 0.5)
    kept = average.average["weight"].clone()
    module.weight.data.add_(1.0)
    assert torch.equal(average.average["weight"], kept)
    with average.applied():
        module.weight.data.zero_()
    assert torch.equal(average.average["weight"], kept)


def test_states_round_trip() -> None:
    torch.manual_seed(1)
    module = nn.Linear(2, 2)
    average = MovingAverage(module, 0.9)
    for _ in range(5):
        module.weight.data.add_(torch.randn(2, 2))
        average.update()
    again = MovingAverage(copy.deepcopy(module), 0.9)
    again.load_state_dict(copy.deepcopy(average.state_dict()))
    for one in (average, again):
        one.module.weight.data.fill_(1.0)
        one.update()
    assert again.updates == average.updates == 6
    assert torch.equal(again.average["weight"], average.average["weight"])
