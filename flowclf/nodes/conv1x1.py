"""Learned invertible mixing of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.modes import is_exported
from flowclf.nodes.base import BijectiveNode, Shapes, positions, single_shape
from flowclf.nodes.gradients import BackwardStep, gradients
from flowclf.subnets import pointwise


class Mixing(BijectiveNode):
    """Base class of nodes that multiply channels by a learned invertible matrix W, (C, C).

    Args:
        dims_in, dims_c: as for any node.
        parametrization: ``lu`` or ``orthogonal``, see :class:`InvertibleConv1x1`.
        channels: C.
        times: number of pixels at which W is applied, for the log-determinant.
    """

    exact_inverse = True

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None, parametrization: str, channels: int, times: int) -> None:
        super().__init__(dims_in, dims_c)
        self.parametrization = parametrization
        self.times = times
        dtype = torch.get_default_dtype()
        # At this scale the angles of the random rotation spread over most of the circle.
        random = torch.randn(channels, channels, dtype=torch.float64) * math.pi / math.sqrt(8 * channels)
        if parametrization == "orthogonal":
            self.skew = nn.Parameter(random.to(dtype))
            return
        permutation, lower, upper = torch.linalg.lu(_rotation(random.to(dtype).double()))
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation.argmax(1))
        self.register_buffer("sign", diagonal.sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_diagonal = nn.Parameter(diagonal.abs().log().to(dtype))

    def _triangles(self) -> tuple[Tensor, Tensor]:
        identity = torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        lower = self.lower.tril(-1) + identity
        upper = self.upper.triu(1) + identity * (self.sign * self.log_diagonal.exp())
        return lower, upper

    def matrix(self) -> Tensor:
        """W, (C, C)."""
        if self.parametrization == "orthogonal":
            return _rotation(self.skew)
        lower, upper = self._triangles()
        return (lower @ upper)[self.permutation]

    def inverse_matrix(self) -> Tensor:
        """W^-1, (C, C)."""
        if self.parametrization == "orthogonal":
            return _rotation(self.skew).T
        lower, upper = self._triangles()
        if is_exported():
            return _inverse_by_products(self.matrix())
        identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        # W = P L U, so W^-1 = U^-1 L^-1 P^T; the rows of P are the permuted rows of the identity.
        solved = torch.linalg.solve_triangular(lower, identity[self.permutation].T, upper=False, unitriangular=True)
        inverse: Tensor = torch.linalg.solve_triangular(upper, solved, upper=True)
        return inverse

    def _log_det(self, x: Tensor) -> Tensor:
        if self.parametrization == "orthogonal":
            return x.new_zeros(x.shape[0])
        return (self.times * self.log_diagonal.sum()).expand(x.shape[0])


class InvertibleConv1x1(Mixing):
    """Invertible 1x1 convolution z = W x over the channels (Kingma and Dhariwal, Glow, 2018, section 3.2).

    With ``lu``, W = P L (U + diag(d)) and log|det W| = sum log|d|; with ``orthogonal``, W = (I + S)^-1 (I - S), S = A - A^T, is a
    rotation, whose inverse loses no precision, and log|det W| = 0.

    Args:
        parametrization: ``lu`` (any matrix) or ``orthogonal`` (rotations). Both start as a random rotation.

    Example:
        >>> node = InvertibleConv1x1([(4, 8, 8)])
        >>> x = torch.randn(2, 4, 8, 8)
        >>> (z,), log_det = node((x,))
        >>> (again,), _ = node((z,), rev=True)
        >>> bool((again - x).abs().max() < 1e-4)
        True
    """

    def __init__(
        self, dims_in: Shapes, dims_c: Shapes | None = None, *, parametrization: Literal["lu", "orthogonal"] = "lu"
    ) -> None:
        shape = single_shape(dims_in, "InvertibleConv1x1")
        super().__init__(dims_in, dims_c, parametrization, shape[0], positions(shape))

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Multiply each pixel's channels by W."""
        return mix(x, self.matrix()), self._log_det(x) if log_det else None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Multiply each pixel's channels by W^-1."""
        return mix(z, self.inverse_matrix()), -self._log_det(z) if log_det else None

    def backward_step(
        self, z: Tensor, conditions: Sequence[Tensor], grad_z: Tensor, grad_log_det: Tensor | None, parameters: Sequence[Tensor]
    ) -> BackwardStep:
        """Input and gradients from the output, see :mod:`flowclf.nodes.gradients`."""
        with torch.enable_grad():
            matrix = self.matrix()
            log_det = self._log_det(z)
        with torch.no_grad():
            x = mix(z, matrix.T if self.parametrization == "orthogonal" else self.inverse_matrix())
            grad_x = mix(grad_z, matrix.T)
        axes = [axis for axis in range(z.dim()) if axis != 1]
        grad_matrix = torch.tensordot(grad_z, x, dims=(axes, axes))
        outputs, grads = ([matrix], [grad_matrix]) if grad_log_det is None else ([matrix, log_det], [grad_matrix, grad_log_det])
        return BackwardStep(x, grad_x, (None,) * len(conditions), gradients(outputs, parameters, grads))


def _rotation(generator: Tensor) -> Tensor:
    """The rotation (I + S)^-1 (I - S), S = A - A^T, of a generator A, (C, C)."""
    # The Cayley transform takes half the time of a matrix exponential and is as orthogonal.
    skew = generator - generator.T
    identity = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    if is_exported():
        return _inverse_by_products(identity + skew) @ (identity - skew)
    result: Tensor = torch.linalg.solve_ex(identity + skew, identity - skew)[0]
    return result


def _inverse_by_products(matrix: Tensor) -> Tensor:
    """The inverse of a matrix of condition number up to 1e5, by matrix products alone (Newton's iteration; Schulz, 1933).

    Formats for other runtimes, such as ONNX, have no operator that solves linear equations.
    """
    given = matrix.double()
    inverse = given.T / (given.abs().sum(0).amax() * given.abs().sum(1).amax())
    for _ in range(40):
        inverse = 2 * inverse - inverse @ given @ inverse
    return inverse.to(matrix.dtype)


def mix(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of each pixel, or a vector, by a matrix (C, C)."""
    return functional.linear(x, matrix) if x.dim() == 2 else pointwise(x, matrix)
