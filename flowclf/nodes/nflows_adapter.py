"""Any transform of nflows as a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowclf.errors import GraphError
from flowclf.nodes.base import BijectiveNode, Shapes


class NflowsTransform(BijectiveNode):
    """A transform of nflows: ``forward`` and ``inverse``, each returning (outputs, logabsdet).

    Conditions of the graph, vectors (B, D) alone, are concatenated and passed as nflows' ``context``. A classifier that holds
    this node cannot be saved: a checkpoint names registered components with plain arguments, and a transform is an object.

    Args:
        transform: an instance of ``nflows.transforms.Transform`` that keeps the shape.

    Raises:
        GraphError: an object without ``forward`` and ``inverse``.

    Example:
        >>> from nflows.transforms import PointwiseAffineTransform
        >>> node = NflowsTransform([(3,)], transform=PointwiseAffineTransform(shift=1.0, scale=2.0))
        >>> (z,), log_det = node((torch.zeros(1, 3),))
        >>> z
        tensor([[1., 1., 1.]])
    """

    exact_inverse = False

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None, *, transform: nn.Module) -> None:
        super().__init__(dims_in, dims_c)
        if not isinstance(transform, nn.Module) or not callable(getattr(transform, "inverse", None)):
            raise GraphError(f"NflowsTransform needs an nflows transform, found {type(transform).__name__}")
        self.transform_module: Any = transform

    def _context(self, conditions: Sequence[Tensor]) -> Tensor | None:
        return torch.cat(tuple(conditions), dim=1) if conditions else None

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """The transform's ``forward``."""
        z, log_abs_det = self.transform_module(x.contiguous(), context=self._context(conditions))
        return z, log_abs_det

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """The transform's ``inverse``."""
        x, log_abs_det = self.transform_module.inverse(z.contiguous(), context=self._context(conditions))
        return x, log_abs_det
