"""Couplings: one half of the channels is shifted, and perhaps scaled, as a function of the other half."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from flowclf.arguments import PositiveFloat, SubnetSpec
from flowclf.errors import GraphError
from flowclf.nodes.base import BijectiveNode, Shape, channels_of
from flowclf.subnets import build_subnet

__all__ = ["AdditiveCoupling", "AffineCoupling", "set_subnet_dtype"]

Subnet = SubnetSpec | Callable[[int, int], nn.Module] | None


class Coupling(BijectiveNode):
    """What additive and affine couplings share: the split, the conditions, the subnet and its precision.

    Args:
        dims_in: one shape, (C, H, W) or (D,), with at least two channels.
        dims_c: shapes of conditions, if any: feature maps of the same height and width, or vectors, which are spread over it.
        subnet: spec of a registered subnet, or a function (channels_in, channels_out) -> module; by default a convolutional
            subnet for feature maps and a dense one for vectors.
        swap: transform the first half, given the second.
        outputs_per_channel: how many parameters the subnet gives for each transformed channel.
    """

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None,
        subnet: Subnet,
        swap: bool,
        outputs_per_channel: int,
    ) -> None:
        super().__init__(dims_in, dims_c)
        channels = channels_of(self.shape)
        if channels < 2:
            raise GraphError(
                f"{type(self).__name__} splits the channels in two, found shape {self.shape} with {channels}; squeeze it first"
            )
        self.swap = swap
        self.sizes = [channels - channels // 2, channels // 2]
        given, changed = reversed(self.sizes) if swap else self.sizes
        self.changed = changed
        conditions = sum(self._condition_channels(shape) for shape in self.dims_c)
        self.subnet = build_subnet(subnet, given + conditions, outputs_per_channel * changed, spatial=len(self.shape) == 3)
        self.subnet_dtype: torch.dtype | None = None

    def _condition_channels(self, shape: Shape) -> int:
        if len(shape) != 1 and shape[1:] != self.shape[1:]:
            raise GraphError(f"{type(self).__name__} on {self.shape} takes conditions (D,) or (C, {self.shape[1:]}), found {shape}")
        return shape[0]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.split(x, self.sizes, dim=1)
        return (second, first) if self.swap else (first, second)

    def _join(self, given: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, given) if self.swap else (given, changed), dim=1)

    def _parameters_from(self, given: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        if conditions:
            size = given.shape[2:]
            spread = [c if c.dim() == given.dim() else c[:, :, None, None].expand(-1, -1, *size) for c in conditions]
            given = torch.cat((given, *spread), dim=1)
        if self.subnet_dtype is None or not self.training:
            return self.subnet(given)  # type: ignore[no-any-return]
        with torch.autocast(given.device.type, dtype=self.subnet_dtype):
            output: Tensor = self.subnet(given)
        return output.to(given.dtype)


class AdditiveCoupling(Coupling):
    """z_2 = x_2 + t(x_1): volume preserving (Dinh et al., NICE, 2014, section 3.2).

    Example:
        >>> node = AdditiveCoupling([(4, 8, 8)], subnet={"conv": {"width": 16}})
        >>> (z,), log_det = node((torch.randn(2, 4, 8, 8),))
        >>> log_det
        tensor([0., 0.])
    """

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None = None,
        *,
        subnet: Subnet = None,
        swap: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c, subnet, swap, outputs_per_channel=1)

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Add the shift."""
        given, changed = self._split(x)
        return self._join(given, changed + self._parameters_from(given, conditions)), None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Subtract the shift."""
        given, changed = self._split(z)
        return self._join(given, changed - self._parameters_from(given, conditions)), None


class AffineCoupling(Coupling):
    """z_2 = exp(s(x_1)) x_2 + t(x_1) with |s| bounded by ``bound`` (Dinh et al., Real NVP, 2017, section 3.2).

    The bound, s = b tanh(r / b) of the subnet's raw output r, keeps the inverse well conditioned: no coupling stretches or
    shrinks by more than e^b. Facts of practice: below about 1 the likelihood suffers.

    Args:
        bound: largest absolute log-scale b, nats.

    Example:
        >>> node = AffineCoupling([(6,)], bound=1.5)
        >>> x = torch.randn(3, 6)
        >>> (z,), log_det = node((x,))
        >>> (again,), inverse_log_det = node((z,), rev=True)
        >>> torch.allclose(again, x, atol=1e-5), torch.allclose(log_det, -inverse_log_det)
        (True, True)
    """

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None = None,
        *,
        subnet: Subnet = None,
        bound: PositiveFloat = 1.5,
        swap: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c, subnet, swap, outputs_per_channel=2)
        self.bound = bound

    def _scale_and_shift(self, given: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        raw, shift = torch.split(self._parameters_from(given, conditions), self.changed, dim=1)
        return self.bound * torch.tanh(raw / self.bound), shift

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Scale, then shift."""
        given, changed = self._split(x)
        log_scale, shift = self._scale_and_shift(given, conditions)
        z = self._join(given, torch.addcmul(shift, changed, log_scale.exp()))
        return z, log_scale.flatten(1).sum(1) if log_det else None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Unshift, then unscale."""
        given, changed = self._split(z)
        log_scale, shift = self._scale_and_shift(given, conditions)
        x = self._join(given, (changed - shift) * (-log_scale).exp())
        return x, -log_scale.flatten(1).sum(1) if log_det else None


def set_subnet_dtype(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Let the subnets of all couplings compute in ``dtype`` while training; None is the dtype of their parameters.

    The stream and every log-determinant stay as they are, and evaluation, inverse and sampling do not change: rounding to
    bfloat16 is discontinuous, so a difference of 1e-7 in a subnet's input would be enlarged on the way back.
    """
    for node in module.modules():
        if isinstance(node, Coupling):
            node.subnet_dtype = dtype
