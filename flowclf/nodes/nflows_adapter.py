"""Any transform of nflows as a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowclf.errors import GraphError
from flowclf.nodes.base import BijectiveNode, Shapes


class NflowsTransform(BijectiveNode):
    """A transform of nflows. A classifier with this node cannot be saved, since a transform is an object.

    The graph's conditions, vectors (B, D), are concatenated and passed as nflows' ``context``.

    Args:
        transform: an instance of ``nflows.transforms.Transform`` that keeps the shape.

    Raises:
        GraphError: if ``transform`` is not a module with an ``inverse``.

    Example:
        >>> from nflows.transforms import PointwiseAffineTransform
        >>> node = NflowsTransform([(3,)], transform=PointwiseAffineTransform(shift=1.0, scale=2.0))
        >>> node((torch.zeros(1, 3),))[0]
        (tensor([[1., 1., 1.]]),)
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
        return self.transform_module(x.contiguous(), context=self._context(conditions))  # type: ignore[no-any-return]

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """The transform's ``inverse``."""
        return self.transform_module.inverse(z.contiguous(), context=self._context(conditions))  # type: ignore[no-any-return]
