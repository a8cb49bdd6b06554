"""ActNorm: a scale and a shift per channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowclf.argument_types import PositiveFloat
from flowclf.nodes.base import Shapes, positions
from flowclf.nodes.gradients import BackwardStep
from flowclf.nodes.initialization import DataInitializedNode


class ChannelNorm(DataInitializedNode):
    """Base class of nodes with a scale and a shift per channel, which a batch initialises.

    Args:
        dims_in, dims_c: as for any node.
        min_std: see :class:`ActNorm`.
    """

    exact_inverse = True

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, min_std: float) -> None:
        super().__init__(dims_in, dims_c)
        channels = self.shape[0]
        self.min_std = min_std
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def _per_channel(self, value: Tensor) -> Tensor:
        return value.view(1, -1, *(1,) * (len(self.shape) - 1))

    def initialize_from(self, x: Tensor) -> None:
        """Set zero mean and unit variance of each channel."""
        mean, std = self._moments(x)
        # A channel that is all but constant is not scaled: each of many ActNorms would multiply what is left in it.
        alive = std > torch.maximum(self.min_std * std.max(), 1e-5 * x.abs().max())
        scale = torch.where(alive, 1 / std, 1.0)
        self.log_scale.copy_(scale.log())
        self.bias.copy_(-mean * scale)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel."""
        axes = [axis for axis in range(x.dim()) if axis != 1]
        return x.mean(axes), x.std(axes, correction=0)


class ActNorm(ChannelNorm):
    """Per-channel affine map z = exp(s) x + b (Kingma and Dhariwal, Glow, 2018, section 3.1).

    It is the identity until :func:`~flowclf.nodes.initialize` sets zero mean and unit variance of each channel over a batch.

    Args:
        min_std: a channel whose standard deviation over the batch is below this fraction of the largest one is only shifted, so
            that a constant channel stays bounded at any depth.

    Example:
        >>> from flowclf.nodes import initialize
        >>> node = ActNorm([(3, 8, 8)])
        >>> initialize(node, 5 + 2 * torch.randn(64, 3, 8, 8))
        >>> (z,), log_det = node((5 + 2 * torch.randn(64, 3, 8, 8),))
        >>> bool(z.mean().abs() < 0.1), bool(node.initialized)
        (True, True)
    """

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, min_std: PositiveFloat = 0.05) -> None:
        super().__init__(dims_in, dims_c, min_std=min_std)

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Scale, then shift."""
        self.initialize_if_asked(x)
        z = torch.addcmul(self._per_channel(self.bias), x, self._per_channel(self.log_scale.exp()))
        return z, self._log_det(x) if log_det else None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Unshift, then unscale."""
        x = (z - self._per_channel(self.bias)) * self._per_channel((-self.log_scale).exp())
        return x, -self._log_det(z) if log_det else None

    def backward_step(
        self, z: Tensor, conditions: Sequence[Tensor], grad_z: Tensor, grad_log_det: Tensor | None, parameters: Sequence[Tensor]
    ) -> BackwardStep:
        """Input and gradients from the output, see :mod:`flowclf.nodes.gradients`."""
        with torch.no_grad():
            unshifted = z - self._per_channel(self.bias)
            x = unshifted * self._per_channel((-self.log_scale).exp())
            grad_x = grad_z * self._per_channel(self.log_scale.exp())
            axes = [axis for axis in range(z.dim()) if axis != 1]
            grads: list[Tensor] = []
            for parameter in parameters:
                grad = (grad_z if parameter is self.bias else grad_z * unshifted).sum(axes)
                if parameter is self.log_scale and grad_log_det is not None:
                    grad += positions(self.shape) * grad_log_det.sum()
                grads.append(grad)
        return BackwardStep(x, grad_x, (None,) * len(conditions), tuple(grads))

    def _log_det(self, x: Tensor) -> Tensor:
        return (positions(self.shape) * self.log_scale.sum()).expand(x.shape[0])
