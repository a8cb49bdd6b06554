"""What a second run of a node must find as the first did: random numbers, norms, buffers, autocast, training flags, parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from FrEIA import modules as freia
from FrEIA.framework import GraphINN
from reversible_cases import chain, check, conv, distance, draw_for, outcome, settled
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from flowclf import nodes
from flowclf.errors import UsageError
from flowclf.reversible import Recompute


class SplineCoupling(nodes.Coupling):
    """Its inverse is measured, not declared."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, transformer="rational_quadratic", **arguments)


KINDS: dict[str, tuple[Any, str]] = {
    "additive": (nodes.AdditiveCoupling, "subnet"),
    "affine": (nodes.AffineCoupling, "subnet"),
    "rational quadratic": (SplineCoupling, "subnet"),
    "NICE": (freia.NICECouplingBlock, "subnet_constructor"),
    "GLOW": (freia.GLOWCouplingBlock, "subnet_constructor"),
    "one-sided": (freia.AffineCouplingOneSided, "subnet_constructor"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def graph_of(kind: str, subnet: Any, shape: tuple[int, ...] = (4, 3, 2), repeat: int = 3) -> GraphINN:
    cls, argument = KINDS[kind]
    return settled(chain(shape, *([(nodes.ActNorm, {}), (cls, {argument: subnet})] * repeat)).double())


def with_dropout(size_in: int, size_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(size_in, 6, 1), nn.Dropout(0.4), nn.Tanh(), nn.Dropout2d(0.3), nn.Conv2d(6, size_out, 1))


def with_batch_norm(size_in: int, size_out: int) -> nn.Module:
    first, last = nn.Conv2d(size_in, 6, 1), nn.Conv2d(6, size_out, 1)
    return nn.Sequential(first, nn.BatchNorm2d(6), nn.Tanh(), last, nn.BatchNorm2d(size_out))


def with_spectral_norm(size_in: int, size_out: int) -> nn.Module:
    first = parametrizations.spectral_norm(nn.Conv2d(size_in, 6, 1))
    return nn.Sequential(first, nn.Tanh(), parametrizations.weight_norm(nn.Conv2d(6, size_out, 1)))


class Remembering(nn.Module):
    """Its output depends on a buffer that each forward pass exchanges."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(size_in, size_out, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean() + 0.1
        return torch.tanh(self.layer(x)) * (1 + self.mean)


@every_kind
def test_dropout(kind: str) -> None:
    graph = graph_of(kind, with_dropout)
    check(graph)
    values, _ = draw_for(graph)
    wanted = list(graph.parameters())
    outcome(graph, values, [], parameters=wanted)
    expected = torch.get_rng_state()
    outcome(Recompute(graph), values, [], parameters=wanted)
    assert torch.equal(torch.get_rng_state(), expected)
    check(graph.eval())


@every_kind
def test_batch_norm(kind: str) -> None:
    graph = graph_of(kind, with_batch_norm)
    kept = {name: value.clone() for name, value in graph.state_dict().items()}
    values, _ = draw_for(graph)
    wanted = list(graph.parameters())
    _, stored = outcome(graph, values, [], parameters=wanted)
    expected = {name: value.clone() for name, value in graph.state_dict().items()}
    graph.load_state_dict(kept)
    _, recomputed = outcome(Recompute(graph), values, [], parameters=wanted)
    assert distance(recomputed, stored) <= 1e-9
    moved = [name for name in kept if not torch.equal(kept[name], expected[name])]
    assert any("num_batches_tracked" in name for name in moved)
    for name, value in graph.state_dict().items():
        assert torch.equal(value, expected[name]), name
    check(graph.eval())


@every_kind
@pytest.mark.parametrize("subnet", [with_spectral_norm, Remembering])
def test_buffers_that_the_output_depends_on(kind: str, subnet: Any) -> None:
    graph = graph_of(kind, subnet)
    kept = {name: value.clone() for name, value in graph.state_dict().items()}
    values, _ = draw_for(graph)
    wanted = list(graph.parameters())
    _, stored = outcome(graph, values, [], parameters=wanted)
    expected = {name: value.clone() for name, value in graph.state_dict().items()}
    assert any(not torch.equal(kept[name], value) for name, value in expected.items())
    graph.load_state_dict(kept)
    _, recomputed = outcome(Recompute(graph), values, [], parameters=wanted)
    assert distance(recomputed, stored) <= 1e-9
    for name, value in graph.state_dict().items():
        assert torch.equal(value, expected[name]), name


@every_kind
@pytest.mark.parametrize("around", ["forward", "both"])
def test_autocast(kind: str, around: str) -> None:
    """Gradients in half precision are near to each other, reach every parameter, and not less near to the exact ones."""
    graph = graph_of(kind, conv, repeat=2)
    values, _ = draw_for(graph)
    wanted = list(graph.parameters())
    _, exact = outcome(graph, values, [], parameters=wanted)
    graph.float()
    (x,) = [value.detach().float().requires_grad_() for value in values]

    def grads(model: nn.Module) -> list[Tensor | None]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z, log_det = model(x)
            loss = z.float().square().sum() + log_det.sum()
            if around == "both":
                return list(torch.autograd.grad(loss, [x, *graph.parameters()], allow_unused=True))
        return list(torch.autograd.grad(loss, [x, *graph.parameters()], allow_unused=True))

    stored, recomputed = grads(graph), grads(Recompute(graph))
    assert all(grad is not None and grad.dtype == torch.float32 for grad in recomputed)
    assert distance(recomputed, stored) <= 0.02
    del exact


def test_a_stream_in_half_precision_is_kept() -> None:
    """Under autocast the permutation of FrEIA's AllInOneBlock rounds the whole stream: nothing leads back from there."""
    blocks = [(freia.AllInOneBlock, {"subnet_constructor": conv})] * 3
    graph = settled(chain((4, 3, 2), *blocks).float())
    (x,), _ = draw_for(graph)
    seen: list[bool] = []
    for module in graph.module_list:
        module.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["rev"]), with_kwargs=True)
    found = {}
    for name, model in (("store", graph), ("recompute", Recompute(graph))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z, log_det = model(x)
            assert z.dtype == torch.bfloat16
        wanted = [x, *(parameter for parameter in graph.parameters() if parameter.requires_grad)]
        found[name] = torch.autograd.grad(z.float().square().sum() + log_det.sum(), wanted)
    assert not any(seen)
    assert distance(found["recompute"], found["store"]) == 0.0


@pytest.mark.parametrize("kind", ["affine", "GLOW"])
def test_modes_of_the_forward_pass_count(kind: str) -> None:
    graph = graph_of(kind, lambda a, b: nn.Sequential(with_batch_norm(a, 4), with_dropout(4, b)))
    (x,), _ = draw_for(graph)
    wanted = list(graph.parameters())

    def grads(model: nn.Module, flip: bool) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        z, _ = model(x)
        if flip:
            graph.eval()
            nodes.set_subnet_dtype(graph, torch.bfloat16)
        found = torch.autograd.grad(z.square().sum(), wanted)
        if flip:
            assert not any(module.training for module in graph.modules())
            nodes.set_subnet_dtype(graph, None)
            graph.train()
        return found

    expected = grads(graph, False)
    assert distance(grads(Recompute(graph), True), expected) <= 1e-9


def test_parameters_shared_between_nodes() -> None:
    shared = nn.Conv2d(2, 2, 3, padding=1)
    specs = [(nodes.ActNorm, {}), (nodes.AdditiveCoupling, {"subnet": lambda a, b: shared})]
    graph = settled(chain((4, 3, 2), *(specs * 3), (freia.NICECouplingBlock, {"subnet_constructor": lambda a, b: shared})).double())
    check(graph)


class Idle(nn.Module):
    """A parameter without a part in the output."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(size_in, size_out, 1)
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


@every_kind
def test_parameters_without_gradient(kind: str) -> None:
    graph = graph_of(kind, Idle)
    check(graph)
    (x,), _ = draw_for(graph)
    Recompute(graph)(x)[0].sum().backward()
    assert all((parameter.grad is None) == ("idle" in name) for name, parameter in graph.named_parameters())


@every_kind
def test_frozen_parameters(kind: str) -> None:
    graph = graph_of(kind, conv)
    for index, parameter in enumerate(graph.parameters()):
        parameter.requires_grad_(index % 3 == 0)
    check(graph)
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    check(graph)


def test_nothing_runs_for_frozen_nodes_at_the_start() -> None:
    graph = graph_of("affine", conv)
    calls: list[int] = []
    for index, module in enumerate(graph.module_list):
        module.register_forward_hook(lambda *_, index=index: calls.append(index))
        if index < 3:
            module.requires_grad_(False)
        elif isinstance(module, nodes.AffineCoupling):
            module.subnet.register_forward_hook(lambda *_, index=index: calls.append(index))
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    z, _ = Recompute(graph)(x)
    calls.clear()
    z.sum().backward()
    assert set(calls) == {3, 5}


@every_kind
def test_hooks_on_parameters_act_once(kind: str) -> None:
    graph = graph_of(kind, conv)
    (x,), _ = draw_for(graph)
    parameter = next(iter(graph.parameters()))
    parameter.register_hook(lambda grad: 3 * grad)
    found = {}
    for name, model in (("store", graph), ("recompute", Recompute(graph))):
        graph.zero_grad()
        model(x)[0].square().sum().backward()
        found[name] = [value.grad for value in graph.parameters()]
    assert distance(found["recompute"], found["store"]) <= 1e-9


@every_kind
def test_parameters_of_a_functional_call(kind: str) -> None:
    graph = graph_of(kind, conv)
    (x,), _ = draw_for(graph)
    start = {name: (0.9 * value.detach()).requires_grad_() for name, value in graph.named_parameters()}
    found = {}
    for prefix, model in (("", graph), ("graph.", Recompute(graph))):
        given = {prefix + name: 1.1 * value for name, value in start.items()}
        z, _ = torch.func.functional_call(model, given, (x,))
        found[prefix] = torch.autograd.grad(z.square().sum(), list(start.values()))
    assert distance(found["graph."], found[""]) <= 1e-9


@every_kind
def test_weights_changed_between_the_passes_are_noticed(kind: str) -> None:
    graph = graph_of(kind, conv)
    (x,), _ = draw_for(graph)
    z, _ = Recompute(graph)(x)
    with torch.no_grad():
        next(iter(graph.parameters())).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@every_kind
def test_a_tensor_that_the_graph_does_not_know_is_refused(kind: str) -> None:
    outside = torch.ones(1, dtype=torch.float64, requires_grad=True)

    class Captured(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * outside

    graph = graph_of(kind, lambda a, b: Captured(a, b, 1))
    (x,), _ = draw_for(graph)
    z, _ = Recompute(graph)(x)
    with pytest.raises(UsageError, match=r"shape \(1,\).*register it"):
        z.sum().backward()
