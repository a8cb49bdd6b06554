"""Random graphs of nodes of every origin, and the comparison that they are for. Not tests themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from FrEIA import modules as freia
from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
from hypothesis import strategies as st
from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform
from torch import Tensor, nn

from flowclf import nodes
from flowclf.reversible import Recompute

Shape = tuple[int, ...]
Maker = tuple[Any, dict[str, Any]]


def dense(size_in: int, size_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size_in, 5), nn.Tanh(), nn.Linear(5, size_out))


def conv(size_in: int, size_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(size_in, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, size_out, 1))


class SplineNet(nn.Module):
    """A conditioner as nflows calls it."""

    hidden_features = 5

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.layers = dense(size_in, size_out)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        result: Tensor = self.layers(inputs)
        return result


def _spline(size: int) -> nn.Module:
    transform: nn.Module = PiecewiseRationalQuadraticCouplingTransform(
        torch.arange(size) % 2, SplineNet, num_bins=4, tails="linear", tail_bound=3.0
    )
    return transform


def _matrix(size: int) -> Tensor:
    return torch.eye(size) + 0.3 * torch.randn(size, size) / size


def _couplings(subnet: Callable[[int, int], nn.Module], classes: int) -> dict[str, Maker]:
    stock = {"subnet_constructor": subnet}
    return {
        "NICE": (freia.NICECouplingBlock, stock),
        "RNVP": (freia.RNVPCouplingBlock, stock),
        "GLOW": (freia.GLOWCouplingBlock, stock),
        "GIN": (freia.GINCouplingBlock, stock),
        "one-sided": (freia.AffineCouplingOneSided, stock),
        "all-in-one": (freia.AllInOneBlock, stock),
        "all-in-one soft": (freia.AllInOneBlock, {**stock, "permute_soft": True}),
        "all-in-one GIN reverse": (freia.AllInOneBlock, {**stock, "gin_block": True, "reverse_permutation": True}),
        "all-in-one Householder": (freia.AllInOneBlock, {**stock, "learned_householder_permutation": 2}),
        "permute": (freia.PermuteRandom, {}),
        "stock actnorm": (freia.ActNorm, {}),
        "leaky": (freia.InvAutoAct, {}),
        "leaky two-sided": (freia.InvAutoActTwoSided, {}),
        "elementwise": (freia.LearnedElementwiseScaling, {}),
        "actnorm": (nodes.ActNorm, {}),
        "lu": (nodes.InvertibleConv1x1, {}),
        "orthogonal": (nodes.InvertibleConv1x1, {"parametrization": "orthogonal"}),
        "additive": (nodes.AdditiveCoupling, {"subnet": subnet}),
        "additive swap": (nodes.AdditiveCoupling, {"subnet": subnet, "swap": True}),
        "affine": (nodes.AffineCoupling, {"subnet": subnet}),
        "rational quadratic": (nodes.Coupling, {"subnet": subnet, "transformer": {"rational_quadratic": {"bins": 3}}}),
        "logit": (nodes.LogitCoupling, {"subnet": subnet, "classes": classes}),
        "readout": (nodes.LogitReadout, {"subnet": subnet, "classes": classes - 1, "features": 3}),
        "logit swap": (nodes.LogitCoupling, {"subnet": subnet, "classes": classes, "swap": True}),
    }


def makers(shape: Shape) -> dict[str, Maker]:
    """Nodes with one input and one output for that shape."""
    channels = shape[0]
    if len(shape) == 1:
        table = _couplings(dense, channels) if channels > 1 else {"actnorm": (nodes.ActNorm, {})}
        table["sigmoid"] = (freia.InvertibleSigmoid, {})
        table["linear"] = (freia.FixedLinearTransform, {"M": _matrix(channels)})
        if channels > 1:
            table["Householder"] = (freia.HouseholderPerm, {"n_reflections": 2})
            table["spline"] = (nodes.NflowsTransform, {"transform": _spline(channels)})
        return table
    table = _couplings(conv, channels) if channels > 1 else {"actnorm": (nodes.ActNorm, {})}
    # It sums the log-scales of one pixel only.
    table.pop("elementwise", None)
    table["flatten"] = (freia.Flatten, {})
    table["1x1"] = (freia.Fixed1x1Conv, {"M": _matrix(channels)})
    table["dct"] = (nodes.DCT2d, {})
    table["reshape"] = (freia.Reshape, {"output_dims": (channels * shape[1], 1, shape[2])})
    if shape[1] % 2 == 0 and shape[2] % 2 == 0:
        table["squeeze"] = (nodes.Squeeze, {})
        table["Haar"] = (freia.HaarDownsampling, {"rebalance": 0.7})
        table["Haar by wavelet"] = (freia.HaarDownsampling, {"order_by_wavelet": True})
        table["i-RevNet"] = (freia.IRevNetDownsampling, {})
        table["i-RevNet legacy"] = (freia.IRevNetDownsampling, {"legacy_backend": True})
    if channels % 4 == 0:
        table["unHaar"] = (freia.HaarUpsampling, {"rebalance": 1.3})
        table["i-RevNet up"] = (freia.IRevNetUpsampling, {})
    return table


CONDITIONAL = ("NICE", "RNVP", "GLOW", "GIN", "one-sided", "all-in-one", "additive", "affine", "rational quadratic", "logit")


@st.composite
def graphs(draw: st.DrawFn, most: int = 6) -> GraphINN:
    """A GraphINN with splits, concatenations, conditions, and as many outputs as streams are left."""
    state = np.random.get_state()
    np.random.seed(draw(st.integers(0, 2**31)))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    shape: Shape = draw(st.sampled_from([(6,), (3,), (4, 4, 2), (2, 4, 4)]))
    source = InputNode(*shape, name="input")
    made: list[Node] = [source]
    conditions: list[ConditionNode] = []
    streams: list[tuple[Node, int]] = [(source, 0)]
    for index in range(draw(st.integers(1, most))):
        stream = streams.pop(draw(st.integers(0, len(streams) - 1)))
        shape = tuple(stream[0].output_dims[stream[1]])
        partner = next((one for one in streams if tuple(one[0].output_dims[one[1]])[1:] == shape[1:]), None)
        action = draw(st.sampled_from(["node", "node", "node", "split", "concat"]))
        if action == "split" and shape[0] > 1:
            keep = draw(st.integers(1, shape[0] - 1))
            ours = draw(st.booleans())
            made.append(
                Node(stream, nodes.FactorOut, {"keep": keep}, name=f"{index} factor out")
                if ours
                else Node(stream, freia.Split, {"section_sizes": [keep, shape[0] - keep]}, name=f"{index} split")
            )
            streams += [(made[-1], 0), (made[-1], 1)]
            continue
        if action == "concat" and partner is not None:
            streams.remove(partner)
            made.append(Node([stream, partner], freia.Concat, {}, name=f"{index} concat"))
            streams.append((made[-1], 0))
            continue
        table = makers(shape)
        kind = draw(st.sampled_from(sorted(table)))
        given: list[ConditionNode] = []
        if kind in CONDITIONAL and draw(st.booleans()):
            wanted = (2, *shape[1:])
            known = [condition for condition in conditions if condition.dims == wanted]
            given = known[:1] or [ConditionNode(*wanted, name=f"{index} condition")]
            conditions += given if not known else []
        made.append(Node(stream, *table[kind], conditions=given, name=f"{index} {kind}"))
        streams.append((made[-1], 0))
    ends = [OutputNode(stream, name=f"output {index}") for index, stream in enumerate(streams)]
    graph = GraphINN([*made, *conditions, *ends], force_tuple_output=draw(st.booleans()))
    np.random.set_state(state)
    return settled(graph.double())


def settled(graph: GraphINN) -> GraphINN:
    """The graph after a first batch, which initialises FrEIA's ActNorms, and away from its starting values."""
    values, conditions = draw_for(graph)
    graph([value.detach() for value in values], conditions or None)
    with torch.no_grad():
        for parameter in graph.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return graph


def draw_for(graph: GraphINN, batch: int = 5) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and conditions, leaves that want a gradient."""

    def tensors(found: Sequence[Node]) -> list[Tensor]:
        dtype = next((p.dtype for p in graph.parameters() if p.is_floating_point()), torch.float64)
        return [torch.randn(batch, *node.dims, dtype=dtype).requires_grad_() for node in found]

    return tensors(graph.in_nodes), tensors(graph.condition_nodes)


def outcome(
    model: Callable[..., Any],
    values: Sequence[Tensor],
    conditions: Sequence[Tensor],
    *,
    parameters: Sequence[Tensor],
    seed: int = 0,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs with the log-determinant, and gradients of a loss of all of them, under the same random numbers."""
    torch.manual_seed(seed)
    outputs, log_det = model(list(values), list(conditions) or None)
    ends = [*([outputs] if isinstance(outputs, Tensor) else outputs), log_det]
    weights = [torch.linspace(-1, 1, end.numel(), dtype=end.dtype).view(end.shape) for end in ends]
    # The log-determinant enters linearly: GraphINN rounds a constant one to float32.
    loss = sum((end.square().sum() for end in ends[:-1]), torch.zeros(()))
    loss = loss + sum((weight * end).sum() for weight, end in zip(weights, ends, strict=True))
    wanted = [value for value in (*values, *conditions, *parameters) if value.requires_grad]
    return [end.detach() for end in ends], list(torch.autograd.grad(loss, wanted, allow_unused=True))


def distance(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """Distance of two gradients, relative to the norm of the second; both lack the same entries."""
    assert [grad is None for grad in found] == [grad is None for grad in expected]
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    away = sum(float((a - b).double().square().sum()) for a, b in pairs) ** 0.5
    norm = sum(float(b.double().square().sum()) for _, b in pairs) ** 0.5
    return away / norm if norm else away


def check(graph: GraphINN, tolerance: float = 1e-9, *, batch: int = 5, **options: Any) -> None:
    """Recomputed activations give the outputs and gradients that stored ones give."""
    values, conditions = draw_for(graph, batch)
    parameters = list(graph.parameters())
    # HaarUpsampling writes into its input, which autograd refuses where activations are stored.
    wavelets = [module for module in graph.modules() if isinstance(module, freia.HaarDownsampling)]
    hooks = [module.register_forward_pre_hook(lambda _, args: ((args[0][0].clone(),),)) for module in wavelets]
    expected, stored = outcome(graph, values, conditions, parameters=parameters)
    for hook in hooks:
        hook.remove()
    found, recomputed = outcome(Recompute(graph, **options), values, conditions, parameters=parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert distance(recomputed, stored) <= tolerance


def chain(shape: Shape, *specs: tuple[Any, dict[str, Any]], conditions: dict[int, Shape] | None = None) -> GraphINN:
    """Nodes one after the other, each (class, arguments)."""
    source = InputNode(*shape, name="input")
    made: list[Node] = [source]
    given: list[ConditionNode] = []
    for index, (kind, arguments) in enumerate(specs):
        own = [ConditionNode(*conditions[index], name=f"condition {index}")] if conditions and index in conditions else []
        given += own
        made.append(Node(made[-1], kind, arguments, conditions=own, name=f"{index} {kind.__name__}"))
    return GraphINN([*made, *given, OutputNode(made[-1], name="output")])
