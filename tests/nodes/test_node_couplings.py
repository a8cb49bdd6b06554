"""Couplings: what they change and keep, the bound of their scale, their subnets and the precision of those."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import randomize
from torch import Tensor, nn

from flowclf import build_graph, registry
from flowclf.errors import GraphError, RegistryError
from flowclf.nodes import (
    Additive,
    AdditiveCoupling,
    Affine,
    AffineCoupling,
    Coupling,
    LogitCoupling,
    LogitReadout,
    RationalQuadratic,
    SplitHead,
    Transformer,
    set_subnet_dtype,
)
from flowclf.nodes.transformers import build_transformer
from flowclf.reversible import Recompute

both = pytest.mark.parametrize("cls", [AdditiveCoupling, AffineCoupling])


def spline_coupling(*args: Any, **arguments: Any) -> Coupling:
    return Coupling(*args, transformer={"rational_quadratic": {"bound": 6.0}}, **arguments)


every = pytest.mark.parametrize("cls", [AdditiveCoupling, AffineCoupling, spline_coupling])


@every
@pytest.mark.parametrize("shape", [(5, 4, 3), (5,)])
def test_starts_as_the_identity(cls: type[AffineCoupling], shape: tuple[int, ...]) -> None:
    x = torch.randn(2, *shape)
    (z,), log_det = cls([shape])((x,))
    exact = cls is not spline_coupling
    torch.testing.assert_close(z, x, atol=0 if exact else 1e-6, rtol=0)
    torch.testing.assert_close(log_det, torch.zeros(2), atol=0 if exact else 1e-5, rtol=0)


@every
@pytest.mark.parametrize("swap", [False, True])
def test_changes_one_half_and_keeps_the_other_bit_for_bit(cls: type[AffineCoupling], swap: bool) -> None:
    node = randomize(cls([(5, 4, 3)], swap=swap))
    x = torch.randn(2, 5, 4, 3)
    (z,), _ = node((x,))
    kept, changed = (slice(3, 5), slice(0, 3)) if swap else (slice(0, 3), slice(3, 5))
    assert torch.equal(z[:, kept], x[:, kept])
    assert not torch.isclose(z[:, changed], x[:, changed]).any()


@settings(max_examples=20)
@given(bound=st.floats(0.05, 5), magnitude=st.floats(0.1, 1e6), seed=st.integers(0, 1000))
def test_no_scale_leaves_its_bound(bound: float, magnitude: float, seed: int) -> None:
    torch.manual_seed(seed)
    node = randomize(AffineCoupling([(6,)], bound=bound, subnet={"dense": {"width": 4}}))
    with torch.no_grad():
        node.subnet[-1].weight.mul_(magnitude)
    (low, high) = torch.randn(2, 4, 6)
    low[:, :3] = high[:, :3]
    with torch.no_grad():
        stretched = (node((high,))[0][0] - node((low,))[0][0]).abs()[:, 3:]
        _, log_det = node((high,))
    assert (log_det.abs() <= 3 * bound * (1 + 1e-5)).all()
    assert (stretched <= (high - low).abs()[:, 3:] * torch.tensor(bound).exp() * 1.001 + 1e-6 * magnitude).all()


@every
def test_the_default_subnet_is_by_rank(cls: type[AffineCoupling]) -> None:
    kinds = [type(cls([shape]).subnet[0]) for shape in [(4, 2, 2), (4,)]]
    assert kinds == [nn.Conv2d, nn.Linear]


@every
@pytest.mark.parametrize(
    "subnet",
    ["conv", {"conv": {"width": 3}}, lambda size_in, size_out: nn.Conv2d(size_in, size_out, 1)],
    ids=["name", "mapping", "function"],
)
def test_subnets_are_names_mappings_or_functions(cls: type[AffineCoupling], subnet: Any) -> None:
    node = randomize(cls([(4, 2, 2)], subnet=subnet)).double()
    x = torch.randn(2, 4, 2, 2, dtype=torch.float64)
    (z,), _ = node((x,))
    torch.testing.assert_close(node((z,), rev=True)[0][0], x)


def test_a_registered_subnet_can_be_named(scratch_registries: None) -> None:
    @registry.subnets.register("one_layer")
    def one_layer(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Module:
        return nn.Linear(channels_in, channels_out, bias=bias)

    node = AdditiveCoupling([(5,)], subnet={"one_layer": {"bias": False}})
    assert isinstance(node.subnet, nn.Linear)
    assert node.subnet.bias is None


@pytest.mark.parametrize(
    ("shape", "subnet", "words"),
    [
        ((4,), "conv", ["conv", "feature maps", "vectors"]),
        ((4, 2, 2), {"conv": {"kernel": 4}}, ["odd", "4"]),
        ((4, 2, 2), {"conv": {"widht": 4}}, ["conv", "widht"]),
        ((4, 2, 2), {"conv": {}, "dense": {}}, ["one name"]),
        ((4, 2, 2), {"conv": None}, ["conv", "write 'conv' alone"]),
        ((4, 2, 2), {"conv": {"width": 0}}, ["conv", "width", "greater than or equal to 1", "0"]),
        ((4, 2, 2), 7, ["7"]),
    ],
)
def test_wrong_subnets_are_refused(shape: tuple[int, ...], subnet: Any, words: list[str]) -> None:
    with pytest.raises(GraphError) as caught:
        AffineCoupling([shape], subnet=subnet)
    assert all(word in str(caught.value) for word in words)


def test_a_dense_subnet_sees_all_pixels_of_feature_maps_at_once() -> None:
    node = AffineCoupling([(4, 2, 3)], [(5,)], subnet="dense")
    sizes = [layer.in_features for layer in node.subnet if isinstance(layer, nn.Linear)]
    assert sizes[0] == 2 * 6 + 5
    nn.init.normal_(node.subnet[-1].weight)
    x = torch.randn(1, 4, 2, 3, requires_grad=True)
    node((x,), c=[torch.randn(1, 5)])[0][0][0, 3, 0, 0].backward()
    assert x.grad is not None
    assert x.grad[0, :2].ne(0).all()


def test_a_readout_of_feature_maps_takes_no_dense_subnet() -> None:
    with pytest.raises(GraphError, match=r"dense takes vectors \(D,\), found feature maps"):
        LogitReadout([(4, 2, 2)], classes=3, subnet="dense")


def test_an_unknown_subnet_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RegistryError, match="did you mean 'conv'"):
        AffineCoupling([(4, 2, 2)], subnet="cnov")


@every
def test_one_channel_and_odd_conditions_are_refused(cls: type[AffineCoupling]) -> None:
    with pytest.raises(GraphError, match=r"\(1, 4, 4\).*squeeze"):
        cls([(1, 4, 4)])
    with pytest.raises(GraphError, match=r"\(2, 5, 4\)"):
        cls([(4, 4, 4)], [(2, 5, 4)])
    with pytest.raises(GraphError, match=r"\(2, 1, 1\)"):
        cls([(4,)], [(2, 1, 1)])


def seen_dtypes(node: AffineCoupling) -> set[torch.dtype]:
    seen: set[torch.dtype] = set()
    for layer in node.subnet:
        layer.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    return seen


@every
@pytest.mark.parametrize("shape", [(6, 4, 4), (6,)])
def test_a_subnet_dtype_is_for_subnets_in_training_alone(cls: type[AffineCoupling], shape: tuple[int, ...]) -> None:
    # A spline with parameters of that size is steep, and rounding shows.
    node = randomize(cls([shape]), 0.1 if cls is spline_coupling else 0.3).eval()
    seen = seen_dtypes(node)
    x = torch.randn(8, *shape)
    (exact,), exact_log_det = node((x,))
    assert seen == {torch.float32}
    set_subnet_dtype(nn.Sequential(node), torch.bfloat16)
    (evaluated,), log_det = node((x,))
    assert seen == {torch.float32}
    assert torch.equal(evaluated, exact)
    assert torch.equal(log_det, exact_log_det)
    seen.clear()
    node.train()
    (z,), log_det = node((x,))
    assert seen == {torch.bfloat16}
    assert (z.dtype, log_det.dtype) == (torch.float32, torch.float32)
    assert torch.equal(z[:, :3], x[:, :3])
    assert not torch.equal(z, exact)
    torch.testing.assert_close(z, exact, atol=0.1, rtol=0.1)
    (z.square().sum() + log_det.sum()).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in node.parameters())
    seen.clear()
    set_subnet_dtype(node, None)
    (restored,), _ = node((x,))
    assert seen == {torch.float32}
    assert torch.equal(restored, exact)


def logits_of(x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    (logits, nuisance), _ = SplitHead([tuple(x.shape[1:])], classes=classes)((x,))
    return logits, nuisance


@settings(max_examples=15)
@given(
    classes=st.integers(2, 6),
    extra=st.integers(0, 4),
    size=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    swap=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_logit_coupling_keeps_the_logits(classes: int, extra: int, size: tuple[int, int], swap: bool, seed: int) -> None:
    torch.manual_seed(seed)
    shape = (classes + extra, *size)
    node = randomize(LogitCoupling([shape], classes=classes, swap=swap, subnet={"conv": {"width": 4}})).double()
    x = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        (z,), _ = node((x,))
        (back,), _ = node((x,), rev=True)
    for moved in (z, back):
        torch.testing.assert_close(logits_of(moved, classes)[0], logits_of(x, classes)[0], atol=1e-12, rtol=0)
        assert not torch.allclose(logits_of(moved, classes)[1], logits_of(x, classes)[1])


@pytest.mark.parametrize("swap", [False, True])
def test_a_logit_coupling_keeps_the_logits_of_vectors_bit_for_bit(swap: bool) -> None:
    node = randomize(LogitCoupling([(9,)], classes=3, swap=swap))
    x = torch.randn(3, 9)
    (z,), _ = node((x,))
    assert torch.equal(z[:, :3], x[:, :3])
    assert not torch.equal(z[:, 3:], x[:, 3:])


def test_a_logit_coupling_sees_the_logits() -> None:
    """Half of the channels is given to the subnet; the logits of the other half reach it as the condition."""
    node = randomize(LogitCoupling([(8, 2, 2)], classes=6))
    x = torch.randn(1, 8, 2, 2)
    moved = x.clone()
    moved[:, 5] += 1.0
    shift = (node((moved,))[0][0] - moved) - (node((x,))[0][0] - x)
    assert (shift[:, 6:].abs() > 1e-4).all()


def test_a_logit_coupling_needs_a_channel_for_each_class() -> None:
    with pytest.raises(GraphError, match=r"5 classes.*\(4, 8, 8\)"):
        LogitCoupling([(4, 8, 8)], classes=5)


@pytest.mark.parametrize("shape", [(6, 3, 2), (7,)])
def test_a_readout_changes_the_logits_and_nothing_else(shape: tuple[int, ...]) -> None:
    head = SplitHead([shape], classes=3, logit_scale=4.0)
    node = randomize(LogitReadout([shape], classes=3, logit_scale=4.0)).double()
    x = torch.randn(5, *shape, dtype=torch.float64)
    (z,), log_det = node((x,))
    (before, left), _ = head((x,))
    (after, kept), _ = head((z,))
    torch.testing.assert_close(kept, left, atol=1e-12, rtol=0)
    assert (after - before).abs().min() > 1e-6
    assert torch.equal(log_det, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(6, 3, 2), (7,)])
def test_a_readout_speaks_in_logits_of_what_is_not_a_logit(shape: tuple[int, ...]) -> None:
    """What it adds is the subnet's output, whatever the scale, and does not change with the logits that were there."""
    head = SplitHead([shape], classes=3, logit_scale=4.0)
    node = randomize(LogitReadout([shape], classes=3, logit_scale=4.0)).double()
    x = torch.randn(1, *shape, dtype=torch.float64)
    (logits, nuisance), _ = head((x,))
    ((moved,), _) = head((logits + torch.randn_like(logits), nuisance), rev=True)

    def added(value: Tensor) -> Tensor:
        after: Tensor = head(node((value,))[0])[0][0] - head((value,))[0][0]
        return after

    given, _ = node.partition.split(x)
    torch.testing.assert_close(added(x), node.subnet(given))
    torch.testing.assert_close(added(moved), added(x))


def test_a_readout_starts_as_the_identity_and_can_leave_it() -> None:
    node = LogitReadout([(6, 3, 2)], classes=3)
    x = torch.randn(2, 6, 3, 2)
    (z,), _ = node((x,))
    torch.testing.assert_close(z, x, atol=1e-6, rtol=0)
    z.square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in node.parameters())


@pytest.mark.parametrize(("shape", "match"), [((2, 8, 8), r"3 classes.*\(2, 8, 8\)"), ((3,), r"more to read from than 3")])
def test_a_readout_needs_channels_for_the_logits_and_more_to_read(shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(GraphError, match=match):
        LogitReadout([shape], classes=3)


# Coupling x transformer.


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("additive", Additive),
        ({"affine": {"bound": 0.5}}, Affine),
        ({"rational_quadratic": {}}, RationalQuadratic),
        (Affine(bound=0.5), Affine),
    ],
)
def test_transformers_are_names_mappings_or_objects(spec: Any, expected: type[Transformer]) -> None:
    node = Coupling([(5,)], transformer=spec)
    assert type(node.transformer) is expected
    assert node.keeps_grid == (expected is Additive)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("afine", RegistryError, "unknown transformer 'afine'; did you mean 'affine'"),
        ({"affine": {"bond": 1}}, GraphError, "transformer 'affine': argument bond: unknown key"),
        ({"affine": {}, "additive": {}}, GraphError, "expected the name of a registered transformer, or a mapping of one name"),
        (7, GraphError, "found 7"),
    ],
)
def test_wrong_transformers_are_refused(spec: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build_transformer(spec)


@pytest.mark.parametrize(("named", "spec"), [(AdditiveCoupling, "additive"), (AffineCoupling, "affine")])
@pytest.mark.parametrize("shape", [(6, 4, 4), (7,)])
def test_named_couplings_are_couplings_of_their_transformer(named: Any, spec: str, shape: tuple[int, ...]) -> None:
    one, other = randomize(named([shape])), Coupling([shape], transformer=spec)
    other.load_state_dict(one.state_dict())
    x = torch.randn(3, *shape)
    (z, log_det), (again, same) = ((node((x,))[0][0], node((x,))[1]) for node in (one, other))
    assert torch.equal(z, again)
    assert torch.equal(log_det, same)


class Powered(Transformer):
    """z = exp(a) x + t, with a learned a for all entries: what a third party may write, without declaring anything."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        return x * self.log_scale.exp() + parameters, (self.log_scale * x[0].numel()).expand(len(x))

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        return (z - parameters) * (-self.log_scale).exp(), -(self.log_scale * z[0].numel()).expand(len(z))


def test_a_transformer_of_ones_own_learns_with_stored_and_recomputed_activations(scratch_registries: None) -> None:
    registry.transformers.register("powered")(Powered)
    nodes = [{"coupling": {"transformer": "powered"}}, {"coupling": {"transformer": "powered", "swap": True}}, "split_head"]
    graph = randomize(build_graph((6,), nodes, classes=2)).double()
    assert graph.module_list[0].keeps_grid is False
    x = torch.randn(4, 6, dtype=torch.float64)
    found = []
    for model in (graph, Recompute(graph)):
        graph.zero_grad()
        (logits, nuisance), log_det = model(x)
        (logits.square().sum() + nuisance.square().sum() + log_det.sum()).backward()
        found.append({name: value.grad.clone() for name, value in graph.named_parameters()})
    assert any("transformer.log_scale" in name for name in found[0])
    for name, grad in found[0].items():
        assert grad.abs().max() > 0
        torch.testing.assert_close(found[1][name], grad, rtol=1e-9, atol=1e-12)
