"""The part of a node's input from which the head will read the logits, and what it takes to leave that part as it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.errors import GraphError
from flowclf.nodes.base import LogitPlace, Shape, Shapes, single_shape


class LogitSpace(nn.Module):
    """The K logits in maps (B, C, H, W) or vectors (B, D) before the head, without the head's ``logit_scale``.

    After n squeezes by 2 a channel of the last map is one of s x s pixels of a channel, s = 2^n. So a head with ``dct=False`` reads
    pixels of the upper left s x s corner, and one with ``dct=True`` the means of lattices of pixels s apart. Vectors hold the
    logits in their first K entries.

    Attributes:
        place: the place.
        free: number of dimensions of each channel that are not logits, (C,).
        shifted: number of pixels of each channel that a shift moves, (C,): those that do not belong to a mean that is kept.
    """

    kept: Tensor
    order: Tensor
    free: Tensor
    shifted: Tensor
    mask: Tensor

    def __init__(self, shape: Shape, place: LogitPlace, kept: Tensor | None = None) -> None:
        super().__init__()
        self.shape, self.place = shape, place
        # On vectors and single pixels, a mean is the entry itself.
        self.means = place.dct and math.prod(shape[1:]) > 1
        self.side = 2**place.squeezes if len(shape) == 3 else 1
        ranks = _ranks(shape[0], self.side if len(shape) == 3 else 1, place.squeezes)
        kept = ranks < place.classes if kept is None else kept
        self.empty = not bool(kept.any())
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("order", ranks.flatten().argsort()[: place.classes], persistent=False)
        positions = math.prod(shape[1:])
        self.register_buffer("free", positions - kept.sum((1, 2)), persistent=False)
        each = positions // self.side**2 if self.means else 1
        self.register_buffer("shifted", positions - each * kept.sum((1, 2)), persistent=False)
        self.scale = math.sqrt(positions // self.side**2) if self.means else 1.0
        mask = self._spread(kept[None].float()) > 0
        if len(shape) == 3:
            mask = mask.contiguous(memory_format=torch.channels_last)
        self.register_buffer("mask", mask, persistent=False)

    def channels(self, start: int, stop: int) -> LogitSpace:
        """The part of the space in some of the channels, which has nothing to read."""
        return LogitSpace((stop - start, *self.shape[1:]), self.place, self.kept[start:stop])

    def positions(self) -> LogitSpace:
        """The space with all other channels at the same pixels, or their means over the same lattices."""
        return LogitSpace(self.shape, self.place, torch.ones_like(self.kept))

    def _lattice(self, x: Tensor) -> Tensor:
        """Corner, or means over lattices, (B, C, s, s); vectors (B, D, 1, 1)."""
        if x.dim() == 2:
            return x[:, :, None, None]
        if not self.means:
            return x[:, :, : self.side, : self.side]
        rows, columns = (size // self.side for size in self.shape[1:])
        return x.reshape(*x.shape[:2], rows, self.side, columns, self.side).mean((2, 4))

    def _spread(self, lattice: Tensor) -> Tensor:
        """Maps (B, C, H, W) that are 0 but for their corner, or constant on each lattice; or vectors."""
        if len(self.shape) == 1:
            return lattice.flatten(1)
        rows, columns = self.shape[1:]
        if self.means:
            return lattice.repeat(1, 1, rows // self.side, columns // self.side)
        return functional.pad(lattice, (0, columns - self.side, 0, rows - self.side))

    def _part(self, x: Tensor) -> Tensor:
        """Projection of maps on the space."""
        return self._spread(self._lattice(x) * self.kept)

    def read(self, x: Tensor) -> Tensor:
        """The logits, divided by the head's ``logit_scale``, (B, K)."""
        if len(self.shape) == 1:
            return x[:, : self.place.classes]
        return self._lattice(x).flatten(1)[:, self.order] * self.scale

    def write(self, x: Tensor, values: Tensor) -> Tensor:
        """x with other values (B, K) for what :meth:`read` returns."""
        if len(self.shape) == 1:
            return torch.cat((values, x[:, self.place.classes :]), dim=1)
        lattice = values.new_zeros(values.shape[0], self.kept.numel()).index_copy(1, self.order, values / self.scale)
        return self.restore(x, self._spread(lattice.view(-1, *self.kept.shape)))

    def restore(self, y: Tensor, x: Tensor) -> Tensor:
        """y with the logits of x."""
        if self.empty:
            return y
        return y + self._part(x - y) if self.means else torch.where(self.mask, x, y)

    def without(self, x: Tensor) -> Tensor:
        """x with 0 for the logits."""
        if self.empty:
            return x
        return x - self._part(x) if self.means else x.masked_fill(self.mask, 0)

    def scales(self, log_scale: Tensor) -> Tensor:
        """Log-scales by which maps may be multiplied before the logits are restored.

        They are 0 at pixels that are kept, and the same for all pixels of a lattice whose mean is kept.
        """
        if self.empty:
            return log_scale
        if not self.means:
            return log_scale.masked_fill(self.mask, 0)
        return torch.where(self.mask, self._part(log_scale), log_scale)

    def log_det(self, scales: Tensor) -> Tensor:
        """log|det| of a multiplication by :meth:`scales` and the restoration of the logits, (B,), nats."""
        total = scales.flatten(1).sum(1)
        # A mean that is kept is one direction that is not scaled.
        return total - (self._lattice(scales) * self.kept).flatten(1).sum(1) if self.means and not self.empty else total


def logit_space(dims_in: Shapes, place: LogitPlace, node: str) -> LogitSpace:
    """The space of the logits in a node's one input.

    Raises:
        GraphError: if the input has fewer channels, at the head, than there are classes, or cannot be squeezed; it names ``node``.
    """
    shape = single_shape(dims_in, node)
    side = 2**place.squeezes
    if place.squeezes and (len(shape) == 1 or shape[1] % side or shape[2] % side):
        raise GraphError(
            f"{node}: {place.squeezes} squeezes need feature maps (C, H, W), H and W divisible by {side}, found {shape}"
        )
    if shape[0] * side**2 < place.classes:
        raise GraphError(f"{node} needs a channel for each of {place.classes} classes, found shape {shape}")
    return LogitSpace(shape, place)


def _ranks(channels: int, side: int, squeezes: int) -> Tensor:
    """The channel of the last map that each entry of a patch becomes, (C, s, s)."""
    ranks = torch.arange(channels * side**2).view(1, -1, 1, 1)
    for _ in range(squeezes):
        ranks = functional.pixel_shuffle(ranks, 2)
    return ranks[0]
