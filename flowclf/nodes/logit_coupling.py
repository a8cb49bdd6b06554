"""Couplings that keep the logits and let the nuisances be transformed given them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flowclf.arguments import PositiveFloat
from flowclf.errors import GraphError
from flowclf.nodes.base import channels_of, positions, single_shape
from flowclf.nodes.couplings import AffineCoupling, Subnet

__all__ = ["LogitCoupling"]


class LogitCoupling(AffineCoupling):
    """An affine coupling before the head that leaves the logits unchanged and takes them as a condition.

    A :class:`SplitHead` with ``dct=True`` reads the logits from the mean of the first K channels. This node sees those means,
    never changes them (on these channels it only adds a shift without its mean), and transforms everything else given
    them. So the flow can take out of the nuisances whatever the logits explain, which a factorial prior asks for.

    On vectors the logits are the first K entries, which pass unchanged.

    Args:
        classes: K, at most the number of channels.
        subnet: as in :class:`AffineCoupling`.
        bound: as in :class:`AffineCoupling`.
        swap: transform the first half, given the second.

    Raises:
        GraphError: fewer channels than classes.

    Example:
        >>> node = LogitCoupling([(16, 7, 7)], classes=10)
        >>> x = torch.randn(2, 16, 7, 7)
        >>> (z,), _ = node((x,))
        >>> torch.allclose(z[:, :10].mean((2, 3)), x[:, :10].mean((2, 3)), atol=1e-6)
        True
    """

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None = None,
        *,
        classes: int,
        subnet: Subnet = None,
        bound: PositiveFloat = 1.5,
        swap: bool = False,
    ) -> None:
        dims_in = list(dims_in)
        shape = single_shape(dims_in, "LogitCoupling")
        if channels_of(shape) < classes:
            raise GraphError(f"LogitCoupling needs a channel for each of {classes} classes, found shape {shape}")
        super().__init__(dims_in, [*(dims_c or ()), (classes,)], subnet=subnet, bound=bound, swap=swap)
        self.classes = classes
        start = 0 if swap else self.sizes[0]
        # How many of the transformed channels carry a logit; they come first.
        self.protected = max(0, min(classes - start, self.changed))

    def _with_logits(self, x: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, ...]:
        logits = x[:, : self.classes]
        if logits.dim() == 4:
            logits = logits.mean((2, 3)) * math.sqrt(positions(self.shape))
        return (*conditions, logits)

    def _scale_and_shift(self, given: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        log_scale, shift = super()._scale_and_shift(given, conditions)
        n = self.protected
        if n:
            kept = shift[:, :n]
            centred = kept - kept.mean((2, 3), keepdim=True) if kept.dim() == 4 else torch.zeros_like(kept)
            shift = torch.cat((centred, shift[:, n:]), dim=1)
            log_scale = torch.cat((torch.zeros_like(log_scale[:, :n]), log_scale[:, n:]), dim=1)
        return log_scale, shift

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Scale, then shift, given the logits."""
        return super().transform(x, self._with_logits(x, conditions), log_det)

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Unshift, then unscale, given the logits."""
        return super().invert(z, self._with_logits(z, conditions), log_det)
