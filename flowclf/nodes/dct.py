"""The orthonormal two-dimensional discrete cosine transform of type II."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowclf.errors import GraphError
from flowclf.modes import cached_constant
from flowclf.nodes.base import BijectiveNode, Shapes


@cached_constant
def _dct_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Made in float64 and rounded once, so that a double network stays orthogonal to double precision.
    index = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (index + 0.5) * index[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(device=device, dtype=dtype)


def dct2d(x: Tensor) -> Tensor:
    """Orthonormal DCT-II over the last two dimensions; entry (u, v) holds vertical frequency u, horizontal frequency v.

    Example:
        >>> x = torch.ones(1, 1, 4, 4)
        >>> dct2d(x)[0, 0, 0, 0].item()
        4.0
    """
    vertical, horizontal = (_dct_matrix(size, x.dtype, x.device) for size in x.shape[-2:])
    return vertical @ x @ horizontal.T


def inverse_dct2d(coefficients: Tensor) -> Tensor:
    """Inverse of :func:`dct2d`, its transpose."""
    vertical, horizontal = (_dct_matrix(size, coefficients.dtype, coefficients.device) for size in coefficients.shape[-2:])
    return vertical.T @ coefficients @ horizontal


class DCT2d(BijectiveNode):
    """Orthonormal DCT-II of every feature map, of any height and width; log-determinant 0 (paper, appendix B.3).

    The coefficient (0, 0) is the map's mean times sqrt(H W): an invertible global average pooling.

    Raises:
        GraphError: if the input is a vector.
    """

    exact_inverse = True

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None) -> None:
        super().__init__(dims_in, dims_c)
        if len(self.shape) != 3:
            raise GraphError(f"DCT2d needs feature maps (C, H, W), found {self.shape}")

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Feature maps to coefficients."""
        return dct2d(x), None

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Coefficients to feature maps."""
        return inverse_dct2d(z), None
