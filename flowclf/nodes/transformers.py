"""Transformers: maps that a coupling applies to each entry of one half, with parameters that a subnet computes from the other.

Your own transformer is registered in the group ``flowclf.transformers``; a recipe may set its constructor's keyword arguments
(Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference, 2021, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowclf.argument_types import PositiveFloat, TransformerSpec
from flowclf.component_schema.components import build
from flowclf.errors import GraphError
from flowclf.nodes.gradients import gradients


class Transformer(nn.Module):
    """An invertible map of each entry of x, (B, C, ...), given ``parameters_per_entry`` parameters for it.

    A subclass implements :meth:`forward` and :meth:`inverse`. With parameters of 0, which subnets return at first, it should be the
    identity.

    Attributes:
        parameters_per_entry: P; parameters are (B, P C, ...), and ``chunk(P, dim=1)`` returns P tensors of x's shape.
        exact_inverse: as for a node, see :class:`~flowclf.nodes.FlowNode`.
        keeps_grid: as for a node; true if the parameters are only added.
    """

    parameters_per_entry: int = 1
    exact_inverse: bool | None = None
    keeps_grid: bool = False

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """z and log|det dz/dx|, (B,), nats; the latter is None where it is 0, and may be None where ``log_det`` is False."""
        raise NotImplementedError

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """x and log|det dx/dz|, as in :meth:`forward`."""
        raise NotImplementedError

    def gradients(
        self, x: Tensor, parameters: Tensor, grad_z: Tensor, grad_log_det: Tensor | None, weights: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        """Gradients of :meth:`forward` with respect to x, ``parameters``, and each of ``weights``, parameters of the node.

        A gradient is None if the transformer does not use the weight; ``grad_log_det``, (B,), is None if it is not needed.
        """
        with torch.enable_grad():
            inputs = (x.detach().requires_grad_(), parameters.detach().requires_grad_())
            z, log_det = self(*inputs, grad_log_det is not None)
        outputs = [(z, grad_z)] if log_det is None or grad_log_det is None else [(z, grad_z), (log_det, grad_log_det)]
        grad_x, grad_parameters, *others = gradients(
            [value for value, _ in outputs], [*inputs, *weights], [grad for _, grad in outputs]
        )
        if grad_x is None or grad_parameters is None:
            raise GraphError(f"{type(self).__name__}: the output must depend on the input and on the parameters")
        return grad_x, grad_parameters, tuple(others)


class Additive(Transformer):
    """z = x + t, of log-determinant 0 (Dinh et al., NICE, 2014, section 3.2)."""

    exact_inverse = True
    keeps_grid = True

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Add t."""
        return x + parameters, None

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Subtract t."""
        return z - parameters, None

    def gradients(
        self, x: Tensor, parameters: Tensor, grad_z: Tensor, grad_log_det: Tensor | None, weights: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        """Gradients of a sum."""
        return grad_z, grad_z, (None,) * len(weights)


class Affine(Transformer):
    """z = exp(s) x + t, with s = b tanh(r / b) of the parameter r (Dinh et al., Real NVP, 2017, section 3.2).

    The bound b keeps the inverse well conditioned: no entry is scaled by more than e^b, or less than e^-b.

    Args:
        bound: largest absolute log-scale b, nats.
    """

    parameters_per_entry = 2
    exact_inverse = True

    def __init__(self, *, bound: PositiveFloat = 1.5) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Scale, then shift."""
        log_scale, shift = bounded_affine(parameters, self.bound)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale.flatten(1).sum(1) if log_det else None

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Unshift, then unscale."""
        log_scale, shift = bounded_affine(parameters, self.bound)
        return (z - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1) if log_det else None

    def extra_repr(self) -> str:
        """Arguments, for the repr."""
        return f"bound={self.bound}"


def bounded_affine(parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Log-scale s = b tanh(r / b) and shift, (B, C, ...) each, from parameters (B, 2 C, ...)."""
    raw, shift = parameters.chunk(2, dim=1)
    return bound * torch.tanh(raw / bound), shift


def build_transformer(spec: TransformerSpec | Transformer) -> Transformer:
    """Build a transformer from a registered name or a mapping of one name to its arguments; a transformer is returned as it is.

    Raises:
        GraphError: if the spec has another form, or the transformer does not accept the arguments.
        RegistryError: if the name is not registered.

    Example:
        >>> build_transformer({"affine": {"bound": 1.0}})
        Affine(bound=1.0)
    """
    if isinstance(spec, Transformer):
        return spec
    transformer: Transformer = build("transformers", spec, returns=Transformer)
    return transformer
