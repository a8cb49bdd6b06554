"""Nodes that a batch of data initialises."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowclf.nodes.base import BijectiveNode, Shapes


class DataInitializedNode(BijectiveNode):
    """Base class of nodes that :func:`initialize` sets from a batch; until then they are the identity, or nearly so.

    A subclass implements :meth:`initialize_from`, and calls :meth:`initialize_if_asked` first in its ``transform``. A forward pass,
    training mode or loading do not initialise it. The buffer ``initialized`` records it.
    """

    def __init__(self, dims_in: Shapes, dims_c: Shapes | None = None) -> None:
        super().__init__(dims_in, dims_c)
        self.register_buffer("initialized", torch.tensor(False))
        self.initializing = False

    def initialize_from(self, x: Tensor) -> None:
        """Set parameters and buffers from a batch of inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not implement initialize_from")

    def initialize_if_asked(self, x: Tensor) -> None:
        """Initialise the node if this pass is for that, and it has not been."""
        if self.initializing and not self.initialized:
            with torch.no_grad():
                self.initialize_from(x)
                self.initialized.fill_(True)


@torch.no_grad()
def initialize(module: nn.Module, x: Tensor, c: Sequence[Tensor] = ()) -> None:
    """Initialise every node of a FrEIA node or graph that data initialise and that is not yet, in one forward pass.

    Args:
        module: the node or graph.
        x: a batch of inputs, (B, C, H, W) or (B, D); a few hundred samples are enough.
        c: conditions of the graph.
    """
    nodes = [node for node in module.modules() if isinstance(node, DataInitializedNode)]
    for node in nodes:
        node.initializing = True
    try:
        module((x,), c=tuple(c) or None, jac=False)
    finally:
        for node in nodes:
            node.initializing = False
