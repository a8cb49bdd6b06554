"""Cases for the contract that every registered node keeps, and the tools to check it. Not tests themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from FrEIA.modules import InvertibleModule
from hypothesis import strategies as st
from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform
from torch import Tensor, nn

from flowclf.nodes import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Coupling,
    DCT2d,
    FactorOut,
    Gaussianization,
    InvertibleConv1x1,
    LogitActNorm,
    LogitConv1x1,
    LogitCoupling,
    LogitFold,
    LogitGaussianization,
    LogitReadout,
    NflowsTransform,
    Permutation,
    SplitHead,
    Squeeze,
)

Shape = tuple[int, ...]
CONV = {"conv": {"width": 5, "kernel": 3}}
DENSE = {"dense": {"width": 6, "hidden_layers": 1}}
SPLINE = {"rational_quadratic": {"bins": 4, "bound": 2.0}}


@dataclass(frozen=True)
class Case:
    """One way to use a node.

    Attributes:
        kind: the registered name.
        build: input shapes and shapes of conditions -> the node.
        shapes: strategy for the shapes of its inputs.
        example: one such list, for tests that need no more.
        conditions: shapes of conditions, given the input shapes.
        inverse_error: how far the inverse may be off, in float64.
    """

    kind: str
    build: Callable[[list[Shape], list[Shape]], InvertibleModule]
    shapes: st.SearchStrategy[list[Shape]]
    example: list[Shape]
    conditions: Callable[[list[Shape]], list[Shape]] = lambda shapes: []
    inverse_error: float = 1e-10


def _sizes(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


def images(channels: tuple[int, int] = (1, 4), side: tuple[int, int] = (1, 4)) -> st.SearchStrategy[list[Shape]]:
    return st.tuples(_sizes(*channels), _sizes(*side), _sizes(*side)).map(lambda shape: [shape])


def squeezable(channels: tuple[int, int], low: int = 1) -> st.SearchStrategy[list[Shape]]:
    """Shapes that can be squeezed by 2, with at least ``low`` pixels per side afterwards."""
    return st.tuples(_sizes(*channels), _sizes(low, 2), _sizes(low, 2)).map(lambda s: [(s[0], 2 * s[1], 2 * s[2])])


def vectors(low: int, high: int = 8) -> st.SearchStrategy[list[Shape]]:
    return _sizes(low, high).map(lambda size: [(size,)])


def plain(cls: type[InvertibleModule], **arguments: Any) -> Callable[[list[Shape], list[Shape]], InvertibleModule]:
    return lambda shapes, conditions: cls(shapes, conditions or None, **arguments)


def _subnet(shapes: list[Shape]) -> dict[str, Any]:
    return CONV if len(shapes[0]) == 3 else DENSE


def coupling(cls: type[InvertibleModule], **arguments: Any) -> Callable[[list[Shape], list[Shape]], InvertibleModule]:
    return lambda shapes, conditions: cls(shapes, conditions or None, subnet=_subnet(shapes), **arguments)


def _spline(shapes: list[Shape], conditions: list[Shape]) -> InvertibleModule:
    channels = shapes[0][0]
    mask = torch.arange(channels) % 2
    net = SplineNet if len(shapes[0]) == 1 else SplineConvNet
    context = sum(shape[0] for shape in conditions)
    transform = PiecewiseRationalQuadraticCouplingTransform(
        mask, lambda size_in, size_out: net(size_in + context, size_out), num_bins=4, tails="linear", tail_bound=3.0
    )
    return NflowsTransform(shapes, conditions or None, transform=transform)


class SplineNet(nn.Module):
    """A conditioner as nflows calls it; it divides by the root of ``hidden_features``, and warns where there are none."""

    hidden_features = 6

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size_in, 6), nn.Tanh(), nn.Linear(6, size_out))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        result: Tensor = self.layers(inputs if context is None else torch.cat((inputs, context), dim=1))
        return result


class SplineConvNet(nn.Module):
    """A conditioner for images, as nflows calls it."""

    hidden_channels = 4

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(size_in, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, size_out, 1))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        result: Tensor = self.layers(inputs)
        return result


def head_shapes() -> st.SearchStrategy[list[Shape]]:
    last = st.tuples(_sizes(1, 4), _sizes(2, 3), _sizes(2, 3))
    parts = st.lists(st.one_of(st.tuples(_sizes(1, 2), _sizes(1, 4), _sizes(1, 3)), st.tuples(_sizes(1, 4))), max_size=2)
    return st.tuples(last, parts).map(lambda pair: [pair[0], *pair[1]])


def _vector_condition(shapes: list[Shape]) -> list[Shape]:
    return [(3,)]


def _map_and_vector(shapes: list[Shape]) -> list[Shape]:
    return [(2, *shapes[0][1:]), (3,)]


CASES: dict[str, Case] = {
    "actnorm-image": Case("actnorm", plain(ActNorm), images(), [(3, 4, 2)]),
    "actnorm-vector": Case("actnorm", plain(ActNorm), vectors(1), [(5,)]),
    "conv1x1-lu-image": Case("invertible_conv1x1", plain(InvertibleConv1x1), images(), [(3, 4, 2)]),
    "conv1x1-lu-vector": Case("invertible_conv1x1", plain(InvertibleConv1x1), vectors(1), [(5,)]),
    "conv1x1-orthogonal-image": Case(
        "invertible_conv1x1", plain(InvertibleConv1x1, parametrization="orthogonal"), images(), [(3, 4, 2)]
    ),
    "conv1x1-orthogonal-vector": Case(
        "invertible_conv1x1", plain(InvertibleConv1x1, parametrization="orthogonal"), vectors(1), [(5,)]
    ),
    "additive-image": Case("additive_coupling", coupling(AdditiveCoupling), images((2, 5)), [(3, 4, 2)]),
    "additive-vector": Case("additive_coupling", coupling(AdditiveCoupling, swap=True), vectors(2), [(5,)]),
    "affine-image": Case("affine_coupling", coupling(AffineCoupling, bound=1.0), images((2, 5)), [(3, 4, 2)]),
    "affine-image-conditions": Case(
        "affine_coupling", coupling(AffineCoupling, swap=True), images((2, 4)), [(3, 4, 2)], _map_and_vector
    ),
    "affine-whole-maps": Case(
        "affine_coupling", plain(AffineCoupling, subnet=DENSE), images((2, 3), (1, 3)), [(3, 2, 2)], _map_and_vector
    ),
    "affine-vector": Case("affine_coupling", coupling(AffineCoupling, swap=True), vectors(2), [(5,)]),
    "affine-vector-conditions": Case("affine_coupling", coupling(AffineCoupling), vectors(2), [(5,)], _vector_condition),
    "spline-image": Case("coupling", coupling(Coupling, transformer=SPLINE), images((2, 5)), [(3, 4, 2)]),
    "spline-image-conditions": Case(
        "coupling", coupling(Coupling, transformer=SPLINE, swap=True), images((2, 4)), [(3, 4, 2)], _map_and_vector
    ),
    "spline-whole-maps": Case("coupling", plain(Coupling, transformer=SPLINE, subnet=DENSE), images((2, 3), (1, 3)), [(3, 2, 2)]),
    "spline-vector": Case("coupling", coupling(Coupling, transformer="rational_quadratic", swap=True), vectors(2), [(5,)]),
    "spline-vector-conditions": Case("coupling", coupling(Coupling, transformer=SPLINE), vectors(2), [(5,)], _vector_condition),
    "coupling-affine": Case("coupling", coupling(Coupling, transformer={"affine": {"bound": 1.0}}), vectors(2), [(5,)]),
    "coupling-additive": Case("coupling", coupling(Coupling, transformer="additive"), images((2, 5)), [(3, 4, 2)]),
    "logit-image": Case("logit_coupling", coupling(LogitCoupling, classes=3), images((4, 6), (2, 3)), [(5, 3, 2)]),
    "logit-image-swap": Case("logit_coupling", coupling(LogitCoupling, classes=3, swap=True), images((4, 6), (2, 3)), [(5, 3, 2)]),
    "logit-whole-maps": Case("logit_coupling", plain(LogitCoupling, classes=3, subnet=DENSE), images((4, 5), (2, 3)), [(5, 3, 2)]),
    "logit-vector-conditions": Case("logit_coupling", coupling(LogitCoupling, classes=2), vectors(4), [(6,)], _vector_condition),
    "logit-corner": Case("logit_coupling", coupling(LogitCoupling, classes=3, dct=False), images((4, 6), (2, 3)), [(5, 3, 2)]),
    "logit-corner-before": Case(
        "logit_coupling",
        plain(LogitCoupling, classes=5, dct=False, squeezes=1, detach_logits=True, subnet={"conditional_conv": {"width": 4}}),
        squeezable((2, 4)),
        [(3, 4, 2)],
        _map_and_vector,
    ),
    "logit-conditional-pixels": Case(
        "logit_coupling",
        plain(LogitCoupling, classes=3, detach_logits=True, subnet={"conditional_conv": {"width": 4, "pixelwise": True}}),
        images((3, 5), (2, 3)),
        [(4, 3, 2)],
        _map_and_vector,
    ),
    "logit-lattice-swap": Case(
        "logit_coupling", coupling(LogitCoupling, classes=5, squeezes=1, swap=True), squeezable((2, 3)), [(2, 4, 2)]
    ),
    "logit-actnorm-means": Case("logit_actnorm", plain(LogitActNorm, classes=3), images((3, 6), (2, 3)), [(5, 3, 2)]),
    "logit-actnorm-lattice": Case("logit_actnorm", plain(LogitActNorm, classes=5, squeezes=1), squeezable((2, 3)), [(2, 4, 4)]),
    "logit-actnorm-corner": Case(
        "logit_actnorm", plain(LogitActNorm, classes=5, dct=False, squeezes=1, logit_scale=2.0), squeezable((2, 3)), [(2, 4, 4)]
    ),
    "logit-actnorm-pixels": Case(
        "logit_actnorm",
        plain(LogitActNorm, classes=5, pixelwise=True, dct=False, squeezes=1, logit_scale=2.0),
        squeezable((2, 3)),
        [(2, 4, 4)],
    ),
    "logit-actnorm-pixels-means": Case(
        "logit_actnorm", plain(LogitActNorm, classes=5, pixelwise=True, squeezes=1), squeezable((2, 3)), [(2, 4, 4)]
    ),
    "logit-actnorm-unconditional": Case("logit_actnorm", plain(LogitActNorm, classes=2, conditional=False), vectors(3), [(5,)]),
    "gaussianization-image": Case("gaussianization", plain(Gaussianization, bins=5, bound=2.0), images(), [(3, 4, 2)]),
    "gaussianization-vector": Case("gaussianization", plain(Gaussianization), vectors(1), [(5,)]),
    "logit-gaussianization": Case(
        "logit_gaussianization", plain(LogitGaussianization, classes=5, squeezes=1), squeezable((2, 3), 2), [(2, 4, 4)]
    ),
    "logit-gaussianization-vector": Case("logit_gaussianization", plain(LogitGaussianization, classes=2), vectors(3), [(5,)]),
    "logit-fold": Case("logit_fold", plain(LogitFold, classes=5, squeezes=1), squeezable((2, 3), 2), [(2, 4, 4)]),
    "logit-conv1x1-means": Case("logit_conv1x1", plain(LogitConv1x1, classes=3), images((3, 4), (2, 3)), [(4, 3, 2)]),
    "logit-conv1x1-lattice": Case(
        "logit_conv1x1", plain(LogitConv1x1, classes=5, squeezes=1, parametrization="lu"), squeezable((2, 3), 2), [(2, 4, 4)]
    ),
    "logit-conv1x1-corner": Case(
        "logit_conv1x1", plain(LogitConv1x1, classes=5, dct=False, squeezes=1), squeezable((2, 3), 2), [(2, 4, 4)]
    ),
    "logit-conv1x1-vector": Case("logit_conv1x1", plain(LogitConv1x1, classes=2, parametrization="lu"), vectors(4), [(5,)]),
    "readout-corner": Case(
        "logit_readout",
        plain(
            LogitReadout, classes=5, dct=False, squeezes=1, logit_scale=2.0, subnet={"cnn": {"widths": [4, 5], "convolutions": 1}}
        ),
        squeezable((2, 3), 2),
        [(2, 4, 4)],
    ),
    "readout-lattice": Case(
        "logit_readout", coupling(LogitReadout, classes=5, squeezes=1, features=3), squeezable((2, 3), 2), [(2, 4, 4)]
    ),
    "readout-image": Case("logit_readout", coupling(LogitReadout, classes=3, logit_scale=2.0), images((4, 6), (2, 3)), [(5, 3, 2)]),
    "readout-image-conditions": Case(
        "logit_readout", coupling(LogitReadout, classes=2, features=3), images((2, 4), (2, 3)), [(3, 3, 2)], _map_and_vector
    ),
    "readout-vector": Case("logit_readout", coupling(LogitReadout, classes=2), vectors(3), [(5,)]),
    "squeeze": Case(
        "squeeze",
        plain(Squeeze),
        st.tuples(_sizes(1, 3), _sizes(1, 2), _sizes(1, 2)).map(lambda s: [(s[0], 2 * s[1], 2 * s[2])]),
        [(2, 4, 2)],
    ),
    "squeeze-3": Case(
        "squeeze",
        plain(Squeeze, factor=3),
        st.tuples(_sizes(1, 2), _sizes(1, 2)).map(lambda s: [(1, 3 * s[0], 3 * s[1])]),
        [(1, 6, 3)],
    ),
    "permutation-image": Case("permutation", plain(Permutation), images(), [(3, 4, 2)]),
    "permutation-vector": Case("permutation", plain(Permutation, seed=1), vectors(1), [(5,)]),
    "factor-out-image": Case("factor_out", plain(FactorOut), images((2, 5)), [(3, 4, 2)]),
    "factor-out-keep": Case("factor_out", plain(FactorOut, keep=1), images((2, 5)), [(3, 4, 2)]),
    "factor-out-vector": Case("factor_out", plain(FactorOut), vectors(2), [(5,)]),
    "dct": Case("dct2d", plain(DCT2d), images((1, 2), (1, 5)), [(2, 4, 3)]),
    "head-dct": Case("split_head", plain(SplitHead, classes=3, logit_scale=2.5), head_shapes(), [(2, 3, 2), (1, 2, 2)]),
    "head-pixels": Case("split_head", plain(SplitHead, classes=2, dct=False, logit_scale=0.5), head_shapes(), [(2, 3, 2), (4,)]),
    "head-vector": Case("split_head", plain(SplitHead, classes=3, logit_scale=3.0), vectors(4), [(6,)]),
    "nflows-spline-vector": Case("nflows", _spline, vectors(2, 6), [(5,)], inverse_error=1e-7),
    "nflows-spline-vector-conditions": Case("nflows", _spline, vectors(2, 6), [(5,)], _vector_condition, inverse_error=1e-7),
    "nflows-spline-image": Case("nflows", _spline, images((2, 3), (1, 3)), [(3, 3, 2)], inverse_error=1e-7),
}


def draw_values(shapes: Sequence[Shape], batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes)


def flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.flatten(1) for value in values], dim=1)


def split(values: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    parts = values.split([math.prod(shape) for shape in shapes], dim=1)
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


def log_abs_det(node: Any, values: Sequence[Tensor], conditions: Sequence[Tensor], *, rev: bool) -> Tensor:
    """log|det| of the full Jacobian of each sample by autograd and slogdet, (B,)."""
    shapes = [tuple(value.shape[1:]) for value in values]
    results = []
    for index in range(len(values[0])):
        sample_conditions = [condition[index : index + 1] for condition in conditions]

        def function(point: Tensor, fixed: list[Tensor] = sample_conditions) -> Tensor:
            return flat(node(split(point, shapes), c=fixed, rev=rev, jac=False)[0])[0]

        point = flat([value[index : index + 1] for value in values])
        jacobian = torch.autograd.functional.jacobian(function, point)[:, 0]
        results.append(torch.linalg.slogdet(jacobian).logabsdet)
    return torch.stack(results)
