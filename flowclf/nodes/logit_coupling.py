"""Couplings that keep the logits and let the nuisances be transformed given them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flowclf.argument_types import PositiveFloat
from flowclf.errors import GraphError
from flowclf.nodes.base import Shape, channels_of, positions, single_shape
from flowclf.nodes.couplings import AffineCoupling, Subnet

__all__ = ["LogitCoupling", "check_logit_channels", "mean_map"]


class LogitCoupling(AffineCoupling):
    """An affine coupling before the head that leaves the logits unchanged and takes their softmax as a condition.

    A :class:`SplitHead` with ``dct=True`` reads the logits from the means of the first K channels, times sqrt(H W). This node sees
    them, never changes them, and transforms everything else given the class probabilities that they mean: a channel
    that carries a logit keeps its mean, is scaled around it by one factor for all pixels, and is shifted by a map
    without mean. So the flow can take out of the nuisances whatever the logits explain, which is what a factorial
    prior asks for.

    On vectors the logits are the first K entries, which pass unchanged.

    Args:
        classes: K, at most the number of channels.
        subnet: as in :class:`AffineCoupling`.
        bound: as in :class:`AffineCoupling`.
        swap: transform the first half, given the second.
        logit_scale: that of the head, so that the probabilities are the classifier's own.

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
        logit_scale: PositiveFloat = 1.0,
    ) -> None:
        dims_in = list(dims_in)
        check_logit_channels(dims_in, classes, "LogitCoupling")
        super().__init__(dims_in, [*(dims_c or ()), (classes,)], subnet=subnet, bound=bound, swap=swap)
        self.classes = self.kept_logits = classes
        self.logit_scale = logit_scale
        start = 0 if swap else channels_of(self.shape) - self.changed
        # How many of the transformed channels carry a logit; they come first.
        self.protected = max(0, min(classes - start, self.changed))

    def _probabilities(self, stream: Tensor) -> Tensor:
        # Logits are the same on both ways only up to rounding; their softmax is smooth and bounded, so that does not grow.
        logits = self.logit_scale * math.sqrt(positions(self.shape)) * mean_map(stream[:, : self.classes])
        return logits.flatten(1).softmax(1)

    def _seen(self, stream: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (*conditions, self._probabilities(stream))

    def _seen_gradient(self, x: Tensor, grads: Sequence[Tensor | None]) -> Tensor | None:
        (grad,) = grads
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            probabilities = self._probabilities(leaf)
        return None if grad is None else torch.autograd.grad(probabilities, leaf, grad)[0]

    def _scale_and_shift(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = super()._scale_and_shift(raw)
        n = self.protected
        if n:
            uniform = mean_map(log_scale[:, :n]).expand_as(log_scale[:, :n])
            log_scale = torch.cat((uniform, log_scale[:, n:]), dim=1)
            shift = torch.cat((shift[:, :n] - mean_map(shift[:, :n]), shift[:, n:]), dim=1)
        return log_scale, shift

    def _protected_means(self, changed: Tensor) -> Tensor:
        means = mean_map(changed[:, : self.protected])
        return torch.cat((means, means.new_zeros(len(means), self.changed - self.protected, *means.shape[2:])), dim=1)

    def _log_det(self, log_scale: Tensor) -> Tensor:
        # The mean of a protected channel is one direction that is not scaled.
        return log_scale.flatten(1).sum(1) - mean_map(log_scale[:, : self.protected]).flatten(1).sum(1)

    def _change(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        log_scale, shift = self._scale_and_shift(raw)
        means = self._protected_means(changed)
        result = means + torch.addcmul(shift, changed - means, log_scale.exp())
        return result, self._log_det(log_scale) if log_det else None

    def _restore(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        log_scale, shift = self._scale_and_shift(raw)
        means = self._protected_means(changed)
        result = means + (changed - means - shift) * (-log_scale).exp()
        return result, -self._log_det(log_scale) if log_det else None


def mean_map(x: Tensor) -> Tensor:
    """Each channel's mean over its pixels, (B, C, 1, 1); vectors (B, D) are their own."""
    return x.mean((2, 3), keepdim=True) if x.dim() == 4 else x


def check_logit_channels(dims_in: Iterable[Sequence[int]], classes: int, node: str) -> Shape:
    """The one input shape of a node before the head, with a channel for each logit.

    Raises:
        GraphError: fewer channels than classes.
    """
    shape = single_shape(dims_in, node)
    if channels_of(shape) < classes:
        raise GraphError(f"{node} needs a channel for each of {classes} classes, found shape {shape}")
    return shape
