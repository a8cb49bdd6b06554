"""Couplings: one half of the channels is shifted, and perhaps scaled, as a function of the other half."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from flowclf.argument_types import PositiveFloat, SubnetSpec
from flowclf.errors import GraphError
from flowclf.fixed_point import Peak, round_to_grid
from flowclf.nodes.base import BijectiveNode, Shape, channels_of, elements, positions
from flowclf.nodes.gradients import BackwardStep, gradients
from flowclf.subnets import build_subnet, takes_vectors

__all__ = ["AdditiveCoupling", "AffineCoupling", "set_subnet_dtype"]

Subnet = SubnetSpec | Callable[[int, int], nn.Module] | None


class Coupling(BijectiveNode):
    """What additive and affine couplings share: the split, the conditions, the subnet and its precision.

    A subclass says how the subnet's output changes the other half, in :meth:`_change`, and how that is undone, in
    :meth:`_restore`; both ways and the gradient then follow from one evaluation of the subnet.

    Args:
        dims_in: one shape, (C, H, W) or (D,), with at least two channels.
        dims_c: shapes of conditions, if any: feature maps of the same height and width, or vectors, which are spread over it.
        subnet: spec of a registered subnet, or a function (channels_in, channels_out) -> module; by default a convolutional
            subnet for feature maps and a dense one for vectors.
        swap: transform the first half, given the second.
        outputs_per_channel: how many parameters the subnet gives for each transformed channel.
    """

    exact_inverse = True

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None,
        subnet: Subnet,
        swap: bool,
        outputs_per_channel: int,
    ) -> None:
        super().__init__(dims_in, dims_c)
        self.swap = swap
        given, self.changed = self._parts()
        self.whole_maps = len(self.shape) == 3 and takes_vectors(subnet)
        size = positions(self.shape) if self.whole_maps else 1
        conditions = sum(self._condition_channels(shape) for shape in self.dims_c)
        self.subnet = self._make_subnet(subnet, given * size + conditions, outputs_per_channel * self.changed * size)
        self.subnet_dtype: torch.dtype | None = None

    def _parts(self) -> tuple[int, int]:
        """How many channels the subnet sees, and how many are changed."""
        channels = channels_of(self.shape)
        if channels < 2:
            raise GraphError(
                f"{type(self).__name__} splits the channels in two, found shape {self.shape} with {channels}; squeeze it first"
            )
        first, second = channels - channels // 2, channels // 2
        return (second, first) if self.swap else (first, second)

    def _make_subnet(self, spec: Subnet, channels_in: int, channels_out: int) -> nn.Module:
        return build_subnet(spec, channels_in, channels_out, spatial=len(self.shape) == 3 and not self.whole_maps)

    def _condition_channels(self, shape: Shape) -> int:
        if len(shape) != 1 and shape[1:] != self.shape[1:]:
            raise GraphError(f"{type(self).__name__} on {self.shape} takes conditions (D,) or (C, {self.shape[1:]}), found {shape}")
        return elements(shape) if self.whole_maps else shape[0]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given = x.shape[1] - self.changed
        first, second = torch.split(x, [self.changed, given] if self.swap else [given, self.changed], dim=1)
        return (second, first) if self.swap else (first, second)

    def _join(self, given: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, given) if self.swap else (given, changed), dim=1)

    def _parameters_from(self, given: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        size = given.shape[2:]
        if self.whole_maps:
            given = torch.cat([value.flatten(1) for value in (given, *conditions)], dim=1)
        elif conditions:
            spread = [c if c.dim() == given.dim() else c[:, :, None, None].expand(-1, -1, *size) for c in conditions]
            given = torch.cat((given, *spread), dim=1)
        output = self._run_subnet(given)
        return output.view(len(output), -1, *size) if self.whole_maps else output

    def _run_subnet(self, given: Tensor) -> Tensor:
        if self.subnet_dtype is None or not self._uses_subnet_dtype():
            return self.subnet(given)  # type: ignore[no-any-return]
        with torch.autocast(given.device.type, dtype=self.subnet_dtype):
            output: Tensor = self.subnet(given)
        return output.to(given.dtype)

    def _uses_subnet_dtype(self) -> bool:
        return bool(self.training)

    def _seen(self, stream: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The conditions that the subnet sees; a subclass may add what it reads from the stream, the same on both ways."""
        return tuple(conditions)

    def _change(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """The transformed half, given the subnet's output, and the log-determinant."""
        raise NotImplementedError

    def _restore(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Undo :meth:`_change`."""
        raise NotImplementedError

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Change one half as a function of the other."""
        given, changed = self._split(x)
        raw = self._parameters_from(given, self._seen(x, conditions))
        changed, volume = self._change(changed, raw, log_det)
        return self._join(given, changed), volume

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Undo the change."""
        given, changed = self._split(z)
        raw = self._parameters_from(given, self._seen(z, conditions))
        changed, volume = self._restore(changed, raw, log_det)
        return self._join(given, changed), volume

    def backward_step(
        self,
        z: Tensor,
        conditions: Sequence[Tensor],
        grad_z: Tensor,
        grad_log_det: Tensor | None,
        parameters: Sequence[Tensor],
    ) -> BackwardStep:
        """Input and gradients from the output: the subnet runs once, for the inverse and for the gradient alike.

        Args:
            z: what :meth:`transform` gave.
            conditions: as they were then.
            grad_z: gradient with respect to ``z``.
            grad_log_det: gradient with respect to the log-determinant, (B,), or None.
            parameters: those of the node whose gradient is wanted.
        """
        given, changed = self._split(z)
        with torch.enable_grad():
            leaf = given.detach().requires_grad_()
            seen = [value.detach().requires_grad_() for value in self._seen(z, conditions)]
            raw = self._parameters_from(leaf, seen)
        with torch.no_grad():
            changed = self._restore(changed, raw, False)[0]
            x = self._join(given, changed)
        grad_given, grad_changed = self._split(grad_z)
        grad_changed, grad_raw = self._gradients(changed, raw.detach(), grad_changed, grad_log_det)
        grads = gradients([raw], [leaf, *seen, *parameters], [grad_raw])
        if grads[0] is not None:
            grad_given = grad_given + grads[0]
        grad_x = self._join(grad_given, grad_changed)
        grad_stream = self._seen_gradient(x, grads[1 + len(conditions) : 1 + len(seen)])
        return BackwardStep(
            x,
            grad_x if grad_stream is None else grad_x + grad_stream,
            grads[1 : 1 + len(conditions)],
            grads[1 + len(seen) :],
        )

    def _gradients(self, changed: Tensor, raw: Tensor, grad: Tensor, grad_log_det: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradient of :meth:`_change` with respect to the half that it changes and to the subnet's output."""
        with torch.enable_grad():
            inputs = (changed.detach().requires_grad_(), raw.detach().requires_grad_())
            result, log_det = self._change(*inputs, grad_log_det is not None)
        outputs = [(result, grad)] if log_det is None else [(result, grad), (log_det, grad_log_det)]
        grad_changed, grad_raw = torch.autograd.grad([value for value, _ in outputs], inputs, [one for _, one in outputs])
        return grad_changed, grad_raw

    def _seen_gradient(self, x: Tensor, grads: Sequence[Tensor | None]) -> Tensor | None:
        """Gradient with respect to the stream, given that with respect to what :meth:`_seen` added."""
        return None


class AdditiveCoupling(Coupling):
    """z_2 = x_2 + t(x_1): volume preserving (Dinh et al., NICE, 2014, section 3.2).

    Attributes:
        fixed_point: round t to the grid, so that the inverse of what is on it is exact; see :mod:`flowclf.stream`, which sets it.
        peak: the largest magnitude of z_2, kept with ``fixed_point`` only.

    Example:
        >>> node = AdditiveCoupling([(4, 8, 8)], subnet={"conv": {"width": 16}})
        >>> (z,), log_det = node((torch.randn(2, 4, 8, 8),))
        >>> log_det
        tensor([0., 0.])
    """

    keeps_grid = True

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None = None,
        *,
        subnet: Subnet = None,
        swap: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c, subnet, swap, outputs_per_channel=1)
        self.fixed_point = False
        self.peak = Peak()

    def _parameters_from(self, given: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        if not self.fixed_point:
            return super()._parameters_from(given, conditions)
        # Strides can choose a kernel, and kernels round in their own ways; both ways must meet the same.
        layout = torch.channels_last if given.dim() == 4 else torch.contiguous_format
        return round_to_grid(super()._parameters_from(given.clone(memory_format=layout), conditions))

    def _uses_subnet_dtype(self) -> bool:
        # Rounding to bfloat16 enlarges differences between the two ways; here there are none.
        return bool(self.training or self.fixed_point)

    def _change(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        result = changed + raw
        if self.fixed_point:
            self.peak.see(result)
        return result, None

    def _restore(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        return changed - raw, None

    def _gradients(self, changed: Tensor, raw: Tensor, grad: Tensor, grad_log_det: Tensor | None) -> tuple[Tensor, Tensor]:
        return grad, grad


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

    def _scale_and_shift(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = torch.split(raw, self.changed, dim=1)
        return self.bound * torch.tanh(scale / self.bound), shift

    def _change(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        log_scale, shift = self._scale_and_shift(raw)
        return torch.addcmul(shift, changed, log_scale.exp()), log_scale.flatten(1).sum(1) if log_det else None

    def _restore(self, changed: Tensor, raw: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        log_scale, shift = self._scale_and_shift(raw)
        return (changed - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1) if log_det else None


def set_subnet_dtype(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Let the subnets of all couplings compute in ``dtype`` in train mode; None is the dtype of their parameters.

    The stream and every log-determinant stay as they are, and nothing changes in eval mode, inverse and sampling included:
    rounding to bfloat16 is discontinuous, so a difference of 1e-7 in a subnet's input would be enlarged on the way back. In
    train mode the inverse is that rough: good enough for a loss that looks at images. Only where the stream is in fixed point,
    and nothing can differ, do subnets keep ``dtype`` in eval mode.
    """
    for node in module.modules():
        if isinstance(node, Coupling):
            node.subnet_dtype = dtype
