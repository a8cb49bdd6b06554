"""ActNorm: initialised when asked and only then, safe for constant channels, copies, states and averages."""

from __future__ import annotations

import copy

import pytest
import torch
from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
from tiny import randomize
from torch import Tensor

from flowclf.nodes import ActNorm, AffineCoupling, initialize
from flowclf.training.ema import MovingAverage


def batch(seed: int, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(size, 3, 4, 5, generator=generator)


def values(node: ActNorm) -> tuple[Tensor, Tensor]:
    return node.log_scale.detach().clone(), node.bias.detach().clone()


def test_is_the_identity_and_stays_so_until_asked() -> None:
    node = ActNorm([(3, 4, 5)]).train()
    x = batch(0)
    for mode in (True, False):
        node.train(mode)
        assert torch.equal(node((x,))[0][0], x)
        assert torch.equal(node((x,), rev=True)[0][0], x)
    assert not node.initialized


@pytest.mark.parametrize("shape", [(3, 4, 5), (7,)])
def test_initialisation_gives_zero_mean_and_unit_variance(shape: tuple[int, ...]) -> None:
    node = ActNorm([shape])
    x = 3 + 2 * torch.randn(64, *shape)
    initialize(node, x)
    (z,), _ = node((x,))
    axes = [axis for axis in range(z.dim()) if axis != 1]
    torch.testing.assert_close(z.mean(axes), torch.zeros(shape[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(axes, correction=0), torch.ones(shape[0]), atol=1e-5, rtol=0)
    assert node.initialized


def test_every_actnorm_of_a_graph_sees_what_reaches_it() -> None:
    source, condition = InputNode(4, name="input"), ConditionNode(2, name="condition")
    first = Node(source, ActNorm, {}, name="first")
    coupling = Node(first, AffineCoupling, {}, conditions=condition, name="coupling")
    second = Node(coupling, ActNorm, {}, name="second")
    graph = GraphINN([source, condition, first, coupling, second, OutputNode(second, name="output")])
    randomize(coupling.module)
    x, c = 5 * torch.randn(256, 4) - 1, torch.randn(256, 2)
    initialize(graph, x, c=[c])
    z, _ = graph((x,), c=[c])
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(4), atol=1e-5, rtol=0)


def test_never_initialises_twice() -> None:
    node = ActNorm([(3, 4, 5)])
    initialize(node, batch(0))
    before = values(node)
    initialize(node, 100 * batch(1))
    assert all(map(torch.equal, values(node), before))


def test_a_constant_channel_stays_finite() -> None:
    node = ActNorm([(3, 4, 5)], min_std=0.1)
    x = batch(0)
    x[:, 1] = 7.0
    initialize(node, x)
    (z,), log_det = node((x,))
    (again,), _ = node((z,), rev=True)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()
    torch.testing.assert_close(z[:, 1], torch.zeros_like(z[:, 1]), atol=1e-4, rtol=0)
    assert node.log_scale[1].item() == 0
    torch.testing.assert_close(again, x)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3])
def test_a_channel_that_is_all_but_constant_stays_bounded_at_any_depth(noise: float) -> None:
    # Scaled by 20 each time, what is left of it would be 20^40 times as large.
    graph = [ActNorm([(3, 4, 5)]) for _ in range(40)]
    x = batch(0)
    x[:, 1] = 7.0 + noise * x[:, 1]
    for node in graph:
        initialize(node, x)
        ((x,), _) = node((x,))
    assert x[:, 1].abs().max() < 0.1
    assert sum(node.log_scale[1].item() for node in graph) == 0
    torch.testing.assert_close(x[:, 0].std(correction=0), torch.tensor(1.0))


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_what_is_small_is_small_beside_the_other_channels(size: float) -> None:
    node = ActNorm([(3, 4, 5)])
    initialize(node, size * batch(0))
    ((z,), _) = node((size * batch(0),))
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3))


def test_one_sample_is_enough_to_stay_finite() -> None:
    node = ActNorm([(3,)])
    initialize(node, torch.randn(1, 3))
    assert torch.isfinite(node.log_scale).all()


def test_deep_copies_keep_values_and_flag() -> None:
    node = ActNorm([(3, 4, 5)])
    initialize(node, batch(0))
    again = copy.deepcopy(node)
    again.train()
    again((100 * batch(1),))
    initialize(again, 100 * batch(1))
    assert again.initialized
    assert all(map(torch.equal, values(again), values(node)))


def test_states_keep_values_and_flag_either_way() -> None:
    node = ActNorm([(3, 4, 5)])
    before = copy.deepcopy(node.state_dict())
    initialize(node, batch(0))
    after = copy.deepcopy(node.state_dict())
    fresh = ActNorm([(3, 4, 5)])
    fresh.load_state_dict(after)
    initialize(fresh, 100 * batch(1))
    assert fresh.initialized
    assert all(map(torch.equal, values(fresh), values(node)))
    fresh.load_state_dict(before)
    assert not fresh.initialized
    initialize(fresh, batch(0))
    assert all(map(torch.equal, values(fresh), values(node)))


def test_an_average_carries_the_flag() -> None:
    node = ActNorm([(3, 4, 5)])
    average = MovingAverage(node, 0.9)
    initialize(node, batch(0))
    average.update()
    node.load_state_dict(average.average)
    assert node.initialized
    kept = values(node)
    initialize(node, 100 * batch(1))
    assert all(map(torch.equal, values(node), kept))


def test_a_failed_initialisation_leaves_the_node_usable() -> None:
    node = ActNorm([(3, 4, 5)])
    with pytest.raises((RuntimeError, IndexError)):
        initialize(node, torch.randn(2, 5, 4, 5))
    assert not node.initializing
    x = batch(0)
    kept = values(node)
    node((x,))
    assert all(map(torch.equal, values(node), kept))
