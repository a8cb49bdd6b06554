"""The same network in every library: the paper's for MNIST, with additive couplings only, which all of them have.

Three stages, each a squeeze followed by pairs of couplings, y1 = x1 + F(x2) and y2 = x2 + G(y1), each pair after a fixed
permutation of the channels; half of the channels is factored out after the first two stages. F and G are 3x3, 1x1 and 3x3
convolutions with ReLU (paper, appendix B.2, without batch norm). A coupling counts as a block. With the same weights, all of these
networks are the same function.

If a library has no suitable squeeze, split or permutation, plain torch is used: the benchmarks compare couplings and training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
STAGES = 3


@dataclass(frozen=True)
class Size:
    """Size of the network and its batch.

    Attributes:
        blocks: couplings in all three stages, a multiple of 6.
        width: channels of the subnets' hidden layers.
        shape: shape of an input, (C, H, W).
        batch: inputs per step.
    """

    blocks: int = 48
    width: int = 128
    shape: tuple[int, int, int] = (3, 32, 32)
    batch: int = 64

    def __post_init__(self) -> None:
        if self.blocks < 6 or self.blocks % 6:
            raise SystemExit(f"blocks must be a multiple of 6, found {self.blocks}")

    @property
    def pairs(self) -> int:
        """Pairs of couplings per stage."""
        return self.blocks // (2 * STAGES)

    @property
    def channels(self) -> list[int]:
        """Channels of the stream in each stage."""
        first = 4 * self.shape[0]
        return [first * 2**stage for stage in range(STAGES)]

    def permutations(self) -> list[Tensor]:
        """Draw one permutation per pair, the same for every library."""
        generator = torch.Generator().manual_seed(0)
        return [torch.randperm(channels, generator=generator) for channels in self.channels for _ in range(self.pairs)]


class Network(nn.Module):
    """Interface of a library's network: ``encode`` returns the last maps, then the factored-out ones; ``decode`` inverts it."""

    def encode(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def decode(self, maps: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the first channels at the first pixel, plus half the mean square of all latents."""
        maps = self.encode(x)
        squares = torch.stack([value.square().sum() for value in maps]).sum() / x.numel()
        return functional.cross_entropy(maps[0][:, :CLASSES, 0, 0], labels) + squares / 2


def subnet(width: int) -> Callable[[int, int], nn.Module]:
    """Make a constructor of F and G that suits every library."""

    def construct(channels_in: int, channels_out: int) -> nn.Module:
        first, last = nn.Conv2d(channels_in, width, 3, padding=1), nn.Conv2d(width, channels_out, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last)

    return construct


class Flowclf(Network):
    """The network in flowclf."""

    def __init__(self, size: Size, *, stream: Any = "float", activations: Any = "store", bf16: bool = False) -> None:
        from flowclf import build_classifier
        from flowclf.nodes import Permutation, set_subnet_dtype

        super().__init__()
        coupling = {"subnet": {"conv": {"width": size.width}}}
        pair = ["permutation", *({"additive_coupling": {**coupling, "swap": swap}} for swap in (True, False))]
        stage: list[Any] = ["squeeze", {"repeat": size.pairs, "nodes": pair}]
        specs = [*stage, "factor_out", *stage, "factor_out", *stage, {"split_head": {"dct": False}}]
        self.classifier = build_classifier(size.shape, specs, CLASSES, stream=stream).train()
        self.classifier.activations = activations
        nodes = [module for module in self.classifier.modules() if isinstance(module, Permutation)]
        for node, order in zip(nodes, size.permutations(), strict=True):
            node.permutation.copy_(order)
        if bf16:
            set_subnet_dtype(self.classifier, torch.bfloat16)

    def encode(self, x: Tensor) -> list[Tensor]:
        return list(self.classifier.latents(x))

    def decode(self, maps: list[Tensor]) -> Tensor:
        x: Tensor = self.classifier.inverse(*maps)
        return x

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        logits, nuisance, _ = self.classifier(x)
        return functional.cross_entropy(logits, labels) + (logits.square().sum() + nuisance.square().sum()) / (2 * x.numel())


class Freia(Network):
    """The network in stock FrEIA: one ``GraphINN`` of its own nodes."""

    def __init__(self, size: Size, *, bf16: bool = False) -> None:
        from FrEIA import modules
        from FrEIA.framework import GraphINN, InputNode, Node, OutputNode

        super().__init__()
        self.bf16 = bf16
        orders = iter(size.permutations())
        made: list[Any] = [InputNode(*size.shape, name="input")]
        stream, ends = made[0].out0, []
        for stage, channels in enumerate(size.channels):
            made.append(Node(stream, modules.IRevNetDownsampling, {}, name=f"squeeze {stage}"))
            for index in range(size.pairs):
                made.append(Node(made[-1], modules.PermuteRandom, {}, name=f"permutation {stage} {index}"))
                order = next(orders)
                made[-1].module.perm.data.copy_(order)
                made[-1].module.perm_inv.data.copy_(order.argsort())
                arguments = {"subnet_constructor": subnet(size.width)}
                made.append(Node(made[-1], modules.NICECouplingBlock, arguments, name=f"coupling {stage} {index}"))
            stream = made[-1].out0
            if stage + 1 < STAGES:
                made.append(Node(stream, modules.Split, {"section_sizes": [channels // 2] * 2, "dim": 0}, name=f"split {stage}"))
                ends.append(OutputNode(made[-1].out1, name=f"part {stage}"))
                stream = made[-1].out0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.graph = GraphINN([*made, OutputNode(stream, name="last"), *ends])

    def encode(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return [value.to(x.dtype) for value in self._as_listed(self.graph(x)[0])]

    def _as_listed(self, maps: Iterable[Tensor]) -> list[Tensor]:
        """Sort the maps, smallest first, whatever the order of the graph's outputs."""
        return sorted(maps, key=lambda value: value.shape[2])

    def decode(self, maps: list[Tensor]) -> Tensor:
        order = [node.input_dims[0] for node in self.graph.out_nodes]
        by_shape = {tuple(value.shape[1:]): value for value in maps}
        with torch.autocast(maps[0].device.type, torch.bfloat16, enabled=self.bf16):
            x: Tensor = self.graph([by_shape[tuple(shape)] for shape in order], rev=True)[0]
        return x.to(maps[0].dtype)


class Chained(Network):
    """A library's modules, each with ``forward`` and ``inverse``, in a chain written in plain torch."""

    def __init__(self, size: Size, pair: Callable[[int, Tensor], list[nn.Module]]) -> None:
        super().__init__()
        orders = iter(size.permutations())
        made = [list(chain.from_iterable(pair(channels, next(orders)) for _ in range(size.pairs))) for channels in size.channels]
        self.stages = nn.ModuleList([nn.ModuleList(steps) for steps in made])

    def encode(self, x: Tensor) -> list[Tensor]:
        parts: list[Tensor] = []
        for index, steps in enumerate(self.stages):
            x = functional.pixel_unshuffle(x, 2)
            for step in steps:  # type: ignore[attr-defined]
                x = _first(step(x))
            if index + 1 < STAGES:
                x, part = x.chunk(2, dim=1)
                parts.append(part)
        return [x, *reversed(parts)]

    def decode(self, maps: list[Tensor]) -> Tensor:
        x, *parts = maps
        for index, steps in enumerate(reversed(self.stages)):
            if index:
                x = torch.cat((x, parts[index - 1]), dim=1)
            for step in reversed(steps):  # type: ignore[call-overload]
                x = _first(step.inverse(x))
            x = functional.pixel_shuffle(x, 2)
        return x


def _first(result: Any) -> Tensor:
    """Return the map, without a log-determinant if there is one."""
    value: Tensor = result if isinstance(result, Tensor) else result[0]
    return value


class Reorder(nn.Module):
    """Permutation of channels for memcnn, which has none."""

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.order)

    def inverse(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.order.argsort())


def memcnn(size: Size) -> Network:
    """The network in memcnn: reversible couplings that free their inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import memcnn as library

    def pair(channels: int, order: Tensor) -> list[nn.Module]:
        half = channels // 2
        coupling = library.AdditiveCoupling(subnet(size.width)(half, half), subnet(size.width)(half, half))
        # G was registered before F, which runs first.
        coupling.Gm = coupling._modules.pop("Gm")
        return [Reorder(order), library.InvertibleModuleWrapper(coupling)]

    return Chained(size, pair)


def nflows(size: Size) -> Network:
    """The network in nflows: additive coupling transforms with a mask."""
    from nflows.transforms import AdditiveCouplingTransform, Permutation

    class Conditioner(nn.Module):
        def __init__(self, channels_in: int, channels_out: int) -> None:
            super().__init__()
            self.layers = subnet(size.width)(channels_in, channels_out)

        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            result: Tensor = self.layers(x)
            return result

    def pair(channels: int, order: Tensor) -> list[nn.Module]:
        first = (torch.arange(channels) < channels // 2).int()
        couplings = [AdditiveCouplingTransform(mask, Conditioner) for mask in (first, 1 - first)]
        return [Permutation(order), *couplings]

    return Chained(size, pair)


def normflows(size: Size) -> Network:
    """The network in normflows: affine coupling blocks without scale."""
    import normflows as library

    def pair(channels: int, order: Tensor) -> list[nn.Module]:
        permute = library.flows.Permute(channels)
        permute.perm.copy_(order)
        permute.inv_perm.copy_(order.argsort())
        half = channels // 2
        couplings = [
            library.flows.AffineCouplingBlock(subnet(size.width)(half, half), scale=False, split_mode=mode)
            for mode in ("channel_inv", "channel")
        ]
        return [permute, *couplings]

    return Chained(size, pair)


CONTENDERS: dict[str, Callable[[Size], Network]] = {
    "FrEIA": Freia,
    "FrEIA, bf16 autocast": lambda size: Freia(size, bf16=True),
    "memcnn": memcnn,
    "nflows": nflows,
    "normflows": normflows,
    "flowclf, store": Flowclf,
    "flowclf, recompute": lambda size: Flowclf(size, activations="recompute"),
    "flowclf, store, fixed point": lambda size: Flowclf(size, stream="fixed_point"),
    "flowclf, recompute, fixed point": lambda size: Flowclf(size, activations="recompute", stream="fixed_point"),
    "flowclf, store, bf16 subnets": lambda size: Flowclf(size, bf16=True),
    "flowclf, recompute, bf16 subnets": lambda size: Flowclf(size, activations="recompute", bf16=True),
    "flowclf, recompute, fixed point, bf16 subnets": lambda size: Flowclf(
        size, activations="recompute", stream="fixed_point", bf16=True
    ),
}
"""Constructors by row name; all others are compared with the first."""

REFERENCE = "FrEIA"


def settle(network: Network, seed: int = 0) -> Network:
    """Give every library the same weights; the last convolution of each subnet is small, as after training."""
    generator = torch.Generator().manual_seed(seed)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for index, layer in enumerate(convolutions):
        fan_in = layer.weight[0].numel()
        gain = 0.1 if index % 3 == 2 else 2**0.5
        with torch.no_grad():
            layer.weight.copy_(gain * fan_in**-0.5 * torch.randn(layer.weight.shape, generator=generator))
            if layer.bias is not None:
                layer.bias.copy_(0.05 * torch.randn(layer.bias.shape, generator=generator))
    return network
