"""ActNorm and learned mixing that keep what the head reads as logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from flowclf.argument_types import NonNegativeInt, PositiveFloat
from flowclf.errors import GraphError
from flowclf.nodes.actnorm import ChannelNorm
from flowclf.nodes.base import LogitPlace, Shapes
from flowclf.nodes.conv1x1 import Mixing, mix
from flowclf.nodes.logit_space import logit_space
from flowclf.nodes.logits import ClassProbabilities


class LogitActNorm(ChannelNorm):
    """An :class:`~flowclf.nodes.ActNorm` of everything that is not a logit; its scales and shifts may depend on the class.

    z = exp(s + S c) x + b + B c, with the class probabilities c = softmax(logits), and then the logits of x are restored. S and B
    start at 0. Where a logit is the mean of a lattice of pixels, all of these have one scale.

    Args:
        classes: K.
        conditional: whether there are S and B.
        pixelwise: S c and B c are maps, with an entry for each pixel, rather than one for each channel. What a digit's pixels are
            depends on their place, of which a convolution sees nothing but the margins. In vectors each entry is a channel.
        min_std: as in :class:`~flowclf.nodes.ActNorm`.
        logit_scale: as in the head, so that c is the classifier's.
        dct: as in the head.
        squeezes: number of squeezes by 2 between this node and the head.
        detach_logits: stop the gradient to c.

    Raises:
        GraphError: if the head would have fewer channels than classes, or ``pixelwise`` is without ``conditional``.

    Example:
        >>> node = LogitActNorm([(4, 14, 14)], classes=10, dct=False, squeezes=1)
        >>> x = torch.randn(2, 4, 14, 14)
        >>> (z,), _ = node((x,))
        >>> torch.equal(z[:, :2, :2, :2], x[:, :2, :2, :2])
        True
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        classes: int,
        conditional: bool = True,
        pixelwise: bool = False,
        min_std: PositiveFloat = 0.05,
        logit_scale: PositiveFloat = 1.0,
        dct: bool = True,
        squeezes: NonNegativeInt = 0,
        detach_logits: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c, min_std=min_std)
        if pixelwise and not conditional:
            raise GraphError("LogitActNorm: pixelwise: true needs conditional: true, found false")
        self.space = logit_space(dims_in, LogitPlace(classes, dct, squeezes), "LogitActNorm")
        self.probabilities = ClassProbabilities(self.space, logit_scale, detach_logits)
        self.pixelwise = pixelwise and len(self.shape) > 1
        entries = math.prod(self.shape) if self.pixelwise else self.shape[0]
        self.by_class = nn.Parameter(torch.zeros(2 * entries, classes)) if conditional else None
        self.preserves_logits = self.space.place

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shifted, free = (len(x) * count.clamp(min=1) for count in (self.space.shifted, self.space.free))
        mean = self.space.without(x).sum(axes) / shifted
        around = self.space.without(x - self._per_channel(mean))
        return mean, (around.square().sum(axes) / free).sqrt()

    def _parameters_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale and shift, which are broadcast to the shape of x."""
        log_scale, shift = self._per_channel(self.log_scale), self._per_channel(self.bias)
        if self.by_class is None:
            return log_scale, shift
        shape = self.shape if self.pixelwise else log_scale.shape[1:]
        by_scale, by_shift = (self.probabilities(x) @ self.by_class.T).view(x.shape[0], 2, *shape).unbind(1)
        log_scale, shift = log_scale + by_scale, shift + by_shift
        return (self.space.scales(log_scale) if self.pixelwise else log_scale), shift

    def _log_det(self, log_scale: Tensor, x: Tensor) -> Tensor:
        if self.pixelwise:
            return self.space.log_det(log_scale)
        return (log_scale.flatten(1) @ self.space.free.to(x)).expand(x.shape[0])

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Scale, then shift."""
        self.initialize_if_asked(x)
        log_scale, shift = self._parameters_at(x)
        z = torch.addcmul(shift, x, log_scale.exp())
        return self.space.restore(z, x), self._log_det(log_scale, x) if log_det else None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Unshift, then unscale."""
        log_scale, shift = self._parameters_at(z)
        x = (z - shift) * (-log_scale).exp()
        return self.space.restore(x, z), -self._log_det(log_scale, z) if log_det else None


class LogitConv1x1(Mixing):
    """An :class:`~flowclf.nodes.InvertibleConv1x1` of everything but the pixels with a logit, or the means that a logit is one of.

    Where a :class:`~flowclf.nodes.SplitHead` with ``dct=True`` reads logits from means, those of all channels are kept; where it
    reads pixels, all channels of these pixels. In vectors the other D - K entries are mixed.

    Args:
        classes: K.
        parametrization: as in :class:`~flowclf.nodes.InvertibleConv1x1`.
        dct: as in the head.
        squeezes: number of squeezes by 2 between this node and the head.

    Raises:
        GraphError: if the head would have fewer channels than classes.

    Example:
        >>> node = LogitConv1x1([(4, 14, 14)], classes=10, dct=False, squeezes=1)
        >>> x = torch.randn(2, 4, 14, 14)
        >>> (z,), _ = node((x,))
        >>> torch.equal(z[..., :2, :2], x[..., :2, :2]), torch.equal(z[..., 2:, 2:], x[..., 2:, 2:])
        (True, False)
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        classes: int,
        parametrization: Literal["lu", "orthogonal"] = "orthogonal",
        dct: bool = True,
        squeezes: NonNegativeInt = 0,
    ) -> None:
        space = logit_space(dims_in, LogitPlace(classes, dct, squeezes), "LogitConv1x1")
        channels, *size = space.shape
        if not size:
            channels -= classes
        times = math.prod(size) - space.side**2 if size else 1
        if not channels * times:
            raise GraphError(f"LogitConv1x1 needs more to mix than what is read as logits, found shape {space.shape}")
        super().__init__(dims_in, dims_c, parametrization, channels, times)
        self.space = space.positions() if size else space
        self.preserves_logits = space.place

    def _mixed(self, x: Tensor, matrix: Tensor) -> Tensor:
        if x.dim() == 4:
            return self.space.restore(mix(x, matrix), x)
        kept = self.space.place.classes
        return torch.cat((x[:, :kept], mix(x[:, kept:], matrix)), dim=1)

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Multiply by W."""
        return self._mixed(x, self.matrix()), self._log_det(x) if log_det else None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Multiply by W^-1."""
        return self._mixed(z, self.inverse_matrix()), -self._log_det(z) if log_det else None
