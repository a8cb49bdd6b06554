"""Limits on the memory that is allocated while a model is built from an untrusted description.

A description of a hundred bytes can specify a layer of a terabyte; building a model may take memory in proportion to the numbers
that its file of weights holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from flowclf.errors import CheckpointError

# Building a network creates temporary tensors in addition to each parameter, some of them in float64.
_BYTES_PER_ELEMENT = 64
_SPARE_BYTES = 64 * 2**20
_OPERATIONS_PER_TENSOR = 200
_SPARE_OPERATIONS = 20_000


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of the tensors in a safetensors file from its header alone.

    Raises:
        CheckpointError: if it is not a safetensors file, or its header does not fit its length.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def limit_for(shapes: Mapping[str, tuple[int, ...]], where: str) -> AllocationLimit:
    """The limit for building a model whose weights are tensors of these shapes; ``where`` is its description's name in errors."""
    elements = sum(map(math.prod, shapes.values()))
    return AllocationLimit(
        _SPARE_BYTES + _BYTES_PER_ELEMENT * elements, _SPARE_OPERATIONS + _OPERATIONS_PER_TENSOR * len(shapes), where
    )


class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that limits the total size of the tensors allocated in it; an operation over the limit fails before it allocates.

    Args:
        limit: bytes of all allocations together: freed memory is not subtracted.
        operations: largest number of operations on tensors, so that a long sequence of tiny ones ends too.
        where: name in errors of what is being built.

    Raises:
        CheckpointError: if an operation in the block would exceed a limit.

    Example:
        >>> with AllocationLimit(1000, 100, "model.json"):
        ...     torch.zeros(10_000)
        Traceback (most recent call last):
        flowclf.errors.CheckpointError: model.json needs more than the 1000 bytes of memory that its weights account for
    """

    def __init__(self, limit: int, operations: int, where: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self.operations = operations
        self.where = where

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation if its allocations are within the limits."""
        kwargs = kwargs or {}
        self.operations -= 1
        if self.operations < 0:
            raise CheckpointError(f"{self.where} needs more layers than its weights account for")
        # An operation that returns its own argument, or a view of it, allocates nothing.
        if all(result.alias_info is not None for result in func._schema.returns):
            return func(*args, **kwargs)
        expected = _without_memory(func, args, kwargs)
        if expected is not None:
            self._take(expected)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        self._take(result)
        return result

    def _take(self, result: Any) -> None:
        size = sum(value.numel() * value.element_size() for value in tree_leaves(result) if isinstance(value, Tensor))
        if size > self.limit:
            raise CheckpointError(f"{self.where} needs more than the {self.limit} bytes of memory that its weights account for")
        self.limit -= size


def _without_memory(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute the shapes and types of the results, or None if torch cannot run the operation without memory."""
    args, kwargs = tree_map_only(Tensor, lambda value: value.to("meta"), (args, kwargs))
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs = {**kwargs, "device": torch.device("meta")}
    try:
        return func(*args, **kwargs)
    except (RuntimeError, NotImplementedError, TypeError):
        return None
