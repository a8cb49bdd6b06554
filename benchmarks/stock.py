"""A recipe's training written plainly, for comparison: stock FrEIA, torchvision images, a simple training loop.

Blocks, subnets, batch, optimiser, schedule, clipping, moving average and validation are those of flowclf. If stock FrEIA lacks a
node, a cheaper replacement is used: rotations are fixed, a readout is an ordinary network beside the graph, and the couplings
conditioned on the logits are blocks like the others, in a separate graph. It trains on cross-entropy without log-determinants, in
float32.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from benchmarks.networks import CLASSES, subnet
from flowclf.component_schema.sections import plain
from flowclf.data.torchvision_import import import_torchvision
from flowclf.files import resource
from flowclf.nodes import LogitReadout
from flowclf.recipe import Recipe
from flowclf.training.schedules import build_schedule

SIDE = 28
VALIDATION_BATCH = 500


class Images:
    """MNIST from torchvision: PIL images, transformed one by one, in batches from a ``DataLoader``.

    Args:
        folder: folder for torchvision's files.
        recipe: the recipe, for its batch size, shift and depth.
        train: number of training images.
        validation: number of validation images.
        device: device of the batches.
    """

    def __init__(self, folder: Path, recipe: Recipe, train: int, validation: int, device: str = "cpu") -> None:
        torchvision = import_torchvision()
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for part in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
            with gzip.open(resource("data", "mnist") / f"{part}.gz") as packed, (raw / part).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        still = torchvision.transforms.PILToTensor()
        shift = torchvision.transforms.RandomCrop(SIDE, padding=recipe.data.augment.shift)
        moved = torchvision.transforms.Compose([shift, still])
        order = torch.randperm(60_000, generator=torch.Generator().manual_seed(recipe.seed)).tolist()
        sets = [torchvision.datasets.MNIST(str(folder), transform=one) for one in (moved, still)]
        self.bits = recipe.data.bits
        self.device = device
        self.train = DataLoader(Subset(sets[0], order[validation : validation + train]), recipe.data.batch_size, shuffle=True)
        self.validation = DataLoader(Subset(sets[1], order[:validation]), VALIDATION_BATCH)

    def batches(self, loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over inputs (B, 1, 28, 28) in [-1, 1), with dequantisation noise, and labels (B,)."""
        for images, labels in loader:
            levels = (images.to(self.device) >> (8 - self.bits)).float()
            yield (levels + torch.rand_like(levels)) * 2.0 ** (1 - self.bits) - 1, labels.to(self.device)


def network(arguments: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Build two graphs of the recipe's size: one up to the logits, and one that then transforms only the nuisances.

    Args:
        arguments: arguments of :func:`flowclf.architectures.firevnet.firevnet`, with lists for blocks and width.
    """
    stages, width = arguments["stages"], arguments["width"][-1]
    made: list[Any] = []
    for count, channels in zip(arguments["blocks"], arguments["width"], strict=True):
        made += [None, *[channels] * count]
    maps = (4**stages, SIDE // 2**stages, SIDE // 2**stages)
    return _graph((1, SIDE, SIDE), made, arguments), _graph(maps, [width] * 2 * arguments["logit_couplings"], arguments)


def _graph(shape: tuple[int, ...], widths: list[int | None], arguments: dict[str, Any]) -> nn.Module:
    """Build a ``GraphINN`` of blocks with subnets of these widths; None is a squeeze."""
    from FrEIA import modules
    from FrEIA.framework import GraphINN, InputNode, Node, OutputNode

    made: list[Any] = [InputNode(*shape, name="input")]
    for index, width in enumerate(widths):
        if width is None:
            made.append(Node(made[-1], modules.IRevNetDownsampling, {}, name=f"squeeze {index}"))
            continue
        options = {"subnet_constructor": _started(width), "affine_clamping": arguments["bound"], "permute_soft": True}
        made.append(Node(made[-1], modules.AllInOneBlock, options, name=f"block {index}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph: nn.Module = GraphINN([*made, OutputNode(made[-1], name="output")])
    return graph


def readout(arguments: dict[str, Any]) -> nn.Module | None:
    """Build the recipe's residual network from the last maps to increments of the logits, (B, 10); None if it has none.

    Args:
        arguments: as for :func:`network`.
    """
    if not arguments["readout_width"]:
        return None
    channels, side = 4 ** arguments["stages"], SIDE // 2 ** arguments["stages"]
    subnet = {"residual": {"width": arguments["readout_width"], "blocks": arguments["readout_blocks"]}}
    return LogitReadout([(channels, side, side)], classes=CLASSES, subnet=subnet).subnet


def _started(width: int) -> Any:
    """Make a constructor of subnets whose last layer starts at zero, so that the blocks start as rotations."""

    def construct(channels_in: int, channels_out: int) -> nn.Module:
        made: Any = subnet(width)(channels_in, channels_out)
        nn.init.zeros_(made[-1].weight)
        nn.init.zeros_(made[-1].bias)
        return made  # type: ignore[no-any-return]

    return construct


class Training:
    """Plain training, epoch by epoch.

    Args:
        folder: folder for the data, the metrics and the state.
        recipe: the recipe to train.
        train: number of training images.
        validation: number of validation images.
        whole: run the whole network in each step, as a graph with logits and nuisances does, not only what the loss needs.
        device: device to train on.
    """

    def __init__(self, folder: Path, recipe: Recipe, train: int, validation: int, whole: bool, device: str = "cpu") -> None:
        self.folder = folder
        self.settings = recipe.train
        self.arguments: dict[str, Any] = recipe.model.arguments  # type: ignore[union-attr]
        self.images = Images(folder, recipe, train, validation, device)
        torch.manual_seed(recipe.seed)
        self.graph, self.rest = network(self.arguments)
        self.whole = whole
        self.readout = readout(self.arguments)
        self.model = nn.ModuleList([self.graph, self.rest, *([self.readout] if self.readout else [])]).to(device)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        options = plain(self.settings.optimizer)
        assert options.pop("name") == "adamax"
        decay = options.pop("weight_decay")
        kernels = {id(layer.weight) for layer in self.model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
        groups = [
            {"params": [one for one in self.parameters if id(one) in kernels], "weight_decay": decay},
            {"params": [one for one in self.parameters if id(one) not in kernels], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.Adamax(groups, **options)
        per_epoch = len(self.images.train)
        schedule = build_schedule(plain(self.settings.schedule), self.settings.epochs * per_epoch, per_epoch)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule)
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.updates = 0
        self.rows: list[dict[str, float]] = []

    def logits(self, z: Tensor) -> Tensor:
        """Compute the logits (B, 10): means of the first channels, as in the recipe's head, plus the readout's increments."""
        scale = self.arguments["logit_scale"] * math.sqrt(z[0, 0].numel())
        means = scale * z[:, :CLASSES].mean((2, 3))
        return means if self.readout is None else means + self.readout(z)

    def epoch(self) -> None:
        """Train for an epoch, validate, write the metrics and the state."""
        total = 0.0
        self.model.train()
        for x, labels in self.images.batches(self.images.train):
            z = self.graph(x, jac=False)[0]
            if self.whole:
                self.rest(z, jac=False)
            loss = functional.cross_entropy(self.logits(z), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.settings.gradient_clip:
                nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
            self.optimizer.step()
            self.scheduler.step()
            if self.settings.ema:
                self.updates += 1
                decay = min(self.settings.ema, (1 + self.updates) / (10 + self.updates))
                torch._foreach_lerp_(self.average, [one.detach() for one in self.parameters], 1 - decay)
            total += loss.item()
        self.rows.append({"cross_entropy_nats": total / len(self.images.train), **self.validate()})
        (self.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self.save()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Compute the error of the averaged weights, and -log p(x) under a standard Gaussian, nats."""
        wrong, nats, count = 0.0, 0.0, 0
        self.model.eval()
        with self.averaged():
            for x, labels in self.images.batches(self.images.validation):
                z, log_det = self.graph(x)
                wrong += float((self.logits(z).argmax(1) != labels).sum())
                z, more = self.rest(z)
                nats += float((z.flatten(1).square().sum(1) / 2 - log_det - more).sum())
                count += len(labels)
        return {"validation.error": wrong / count, "validation.nats": nats / count}

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Context with the averaged weights in place, if the recipe uses a moving average."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        if self.settings.ema:
            torch._foreach_copy_(self.parameters, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(self.parameters, kept)

    def save(self) -> None:
        """Save the state that resuming would need."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        (self.folder / "state.pt").write_bytes(buffer.getvalue())
