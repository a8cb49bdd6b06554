"""Base class of couplings and readouts: one part of the input is changed as a function of the other part.

A partition chooses the given and the changed part, a subnet computes parameters from the given part and the conditions, and a
transformer applies them to the changed part. Both directions and the gradient follow from one evaluation of the subnet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from flowclf.errors import GraphError
from flowclf.fixed_point import Peak, round_to_grid
from flowclf.nodes.base import BijectiveNode, Shape, Shapes, positions
from flowclf.nodes.gradients import BackwardStep, gradients
from flowclf.nodes.transformers import Transformer
from flowclf.subnets import Subnet, build_subnet, wants_context, wants_vectors


class Partition(Protocol):
    """Two parts of the input: ``given`` channels for the subnet, and ``changed`` channels for the transformer."""

    given: int
    changed: int

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The given part and the changed part of (B, C, ...)."""

    def join(self, given: Tensor, changed: Tensor) -> Tensor:
        """Undo :meth:`split`."""


class Halves:
    """The first half of the channels is given, and the second changed; with ``swap`` the other way round.

    Raises:
        GraphError: if there is one channel only; the error names ``node``.
    """

    def __init__(self, shape: Shape, swap: bool, node: str) -> None:
        channels = shape[0]
        if channels < 2:
            raise GraphError(f"{node} splits the channels in two, found shape {shape} with {channels}; squeeze it first")
        self.swap = swap
        self.sizes = [channels - channels // 2, channels // 2]
        self.changed, self.given = self.sizes if swap else reversed(self.sizes)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The given half and the changed half."""
        first, second = torch.split(x, self.sizes, dim=1)
        return (second, first) if self.swap else (first, second)

    def join(self, given: Tensor, changed: Tensor) -> Tensor:
        """Both halves in their places."""
        return torch.cat((changed, given) if self.swap else (given, changed), dim=1)


class ConditionalNode(BijectiveNode):
    """A node that changes one part of its input, with parameters that a subnet computes from the other part.

    Args:
        dims_in: one shape, (C, H, W) or (D,).
        dims_c: shapes of conditions, if any: feature maps of the same height and width, or vectors, which are spread over it.
        partition: divides the input into a given and a changed part.
        transformer: applies the parameters to the changed part.
        subnet: a spec, see :mod:`flowclf.subnets`; by default a convolutional subnet for feature maps and a dense one for vectors.
        context: a further condition (B, N), a function of the node's input with the same value at its output.
        context_channels: N.
        pooled: whether the subnet makes vectors of feature maps.

    Attributes:
        subnet_dtype: floating-point type of the subnet in training, see :func:`set_subnet_dtype`.

    Raises:
        GraphError: if a shape, a condition or the subnet does not fit.
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None,
        *,
        partition: Partition,
        transformer: Transformer,
        subnet: Subnet,
        context: Callable[[Tensor], Tensor] | None = None,
        context_channels: int = 0,
        pooled: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c)
        self.partition = partition
        self.context = context
        self.whole_maps = len(self.shape) == 3 and wants_vectors(subnet)
        spatial = len(self.shape) == 3 and not self.whole_maps
        self.vectors_apart = spatial and wants_context(subnet)
        size = positions(self.shape) if self.whole_maps else 1
        of_vectors = sum(shape[0] for shape in self.dims_c if len(shape) == 1) + context_channels
        channels_in = partition.given * size + sum(map(self._condition_channels, self.dims_c)) + context_channels
        self.subnet = build_subnet(
            subnet,
            channels_in - (of_vectors if self.vectors_apart else 0),
            transformer.parameters_per_entry * partition.changed * size,
            spatial=spatial,
            pooled=pooled,
            context_channels=of_vectors if self.vectors_apart else None,
            size=self.shape[1:] if spatial else None,
        )
        self.transformer = transformer
        self.subnet_dtype: torch.dtype | None = None
        self.exact_inverse = transformer.exact_inverse
        self.keeps_grid = transformer.keeps_grid
        self.peak = Peak() if self.keeps_grid else None

    def _condition_channels(self, shape: Shape) -> int:
        if len(shape) != 1 and shape[1:] != self.shape[1:]:
            raise GraphError(f"{type(self).__name__} on {self.shape} takes conditions (D,) or (C, {self.shape[1:]}), found {shape}")
        return math.prod(shape) if self.whole_maps else shape[0]

    def _conditions(self, x: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (*conditions, self.context(x)) if self.context else tuple(conditions)

    def parameters_of(self, given: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """The transformer's parameters, from the given part and all conditions, the context included."""
        size = given.shape[2:]
        if self.fixed_point:
            # Strides can choose a kernel, and kernels round differently; both directions must use the same one.
            given = given.clone(memory_format=torch.channels_last if given.dim() == 4 else torch.contiguous_format)
        context: tuple[Tensor, ...] = ()
        if self.whole_maps:
            given = torch.cat([value.flatten(1) for value in (given, *conditions)], dim=1)
        elif self.vectors_apart:
            maps, vectors = ([c for c in conditions if (c.dim() == 2) is flat] for flat in (False, True))
            given = torch.cat((given, *maps), dim=1) if maps else given
            context = (torch.cat(vectors, dim=1) if vectors else given.new_zeros(given.shape[0], 0),)
        elif conditions:
            spread = [c if c.dim() == given.dim() else c[:, :, None, None].expand(-1, -1, *size) for c in conditions]
            given = torch.cat((given, *spread), dim=1)
        output = self._run_subnet(given, *context)
        output = output.view(output.shape[0], output.shape[1] // math.prod(size), *size) if self.whole_maps else output
        return round_to_grid(output) if self.fixed_point else output

    def _run_subnet(self, *inputs: Tensor) -> Tensor:
        # Rounding to bfloat16 enlarges differences between the two directions; on the grid there are none.
        if self.subnet_dtype is None or not (self.training or self.fixed_point):
            return self.subnet(*inputs)  # type: ignore[no-any-return]
        with torch.autocast(inputs[0].device.type, dtype=self.subnet_dtype):
            output: Tensor = self.subnet(*inputs)
        return output.to(inputs[0].dtype)

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Change one part as a function of the other."""
        given, changed = self.partition.split(x)
        parameters = self.parameters_of(given, self._conditions(x, conditions))
        changed, log_abs_det = self.transformer(changed, parameters, log_det)
        if self.fixed_point and self.peak:
            self.peak.see(changed)
        return self.partition.join(given, changed), log_abs_det

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Undo the change."""
        given, changed = self.partition.split(z)
        parameters = self.parameters_of(given, self._conditions(z, conditions))
        changed, log_abs_det = self.transformer.inverse(changed, parameters, log_det)
        return self.partition.join(given, changed), log_abs_det

    def backward_step(
        self, z: Tensor, conditions: Sequence[Tensor], grad_z: Tensor, grad_log_det: Tensor | None, parameters: Sequence[Tensor]
    ) -> BackwardStep:
        """Input and gradients from the output; the subnet runs once, for both."""
        given, changed = self.partition.split(z)
        with torch.enable_grad():
            leaf = given.detach().requires_grad_()
            seen = [value.detach().requires_grad_() for value in self._conditions(z, conditions)]
            raw = self.parameters_of(leaf, seen)
        with torch.no_grad():
            changed = self.transformer.inverse(changed, raw, False)[0]
            x = self.partition.join(given, changed)
        grad_given, grad_changed = self.partition.split(grad_z)
        grad_changed, grad_raw, own = self.transformer.gradients(changed, raw.detach(), grad_changed, grad_log_det, parameters)
        grad_leaf, *rest = gradients([raw], [leaf, *seen, *parameters], [grad_raw])
        if grad_leaf is not None:
            grad_given = grad_given + grad_leaf
        grad_x = self.partition.join(grad_given, grad_changed)
        if self.context and (grad_context := rest[len(conditions)]) is not None:
            with torch.enable_grad():
                again = x.detach().requires_grad_()
                context = self.context(again)
            if context.requires_grad:
                grad_x = grad_x + torch.autograd.grad(context, again, grad_context)[0]
        of_subnet = rest[len(seen) :]
        total = [a if b is None else b if a is None else a + b for a, b in zip(of_subnet, own, strict=True)]
        return BackwardStep(x, grad_x, tuple(rest[: len(conditions)]), tuple(total))


def set_subnet_dtype(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Run the subnets of all couplings in ``dtype`` in train mode; None is the dtype of their parameters.

    The stream and the log-determinants keep their precision, and eval mode is unaffected: rounding to bfloat16 is discontinuous, so
    the inverse would enlarge a difference of 1e-7 in a subnet's input. With a stream in fixed point, where nothing can differ,
    ``dtype`` holds in eval mode too.
    """
    for node in module.modules():
        if isinstance(node, ConditionalNode):
            node.subnet_dtype = dtype
