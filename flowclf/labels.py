"""Class numbers from code: any integers that are in range, as the int64 tensors that torch wants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowclf.errors import FlowclfError, UsageError
from flowclf.modes import is_traced

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def class_numbers(
    labels: Any,
    classes: int | None,
    length: int | None = None,
    *,
    where: str = "labels",
    error: type[FlowclfError] = UsageError,
    sync: bool = True,
) -> Tensor:
    """Check class numbers, and convert them to int64 (N,), on their own device.

    Args:
        labels: integers of any type (N,): a tensor, an array or a list.
        classes: K; the numbers must be 0 to K - 1. None for any from 0.
        length: N; None for any.
        where: name of the labels in errors.
        error: class of the errors.
        sync: whether to check the range on a GPU too, which waits for it; the range is not checked while tracing.

    Raises:
        FlowclfError: if they are not integers, not one per input, or out of range.

    Example:
        >>> class_numbers(torch.tensor([1, 0], dtype=torch.int8), 2)
        tensor([1, 0])
        >>> class_numbers([0, 2], 2)
        Traceback (most recent call last):
        flowclf.errors.UsageError: labels: expected class numbers from 0 to 1, found 0 to 2
    """
    expected = f"{where}: expected integer labels of shape ({'N' if length is None else length},), one per input"
    try:
        values = labels if isinstance(labels, Tensor) else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise error(f"{expected}, found {_kind(labels)}") from reason
    if values.dtype not in _INTEGERS or values.dim() != 1 or len(values) != (len(values) if length is None else length):
        hint = "; argmax(1) makes class numbers of one-hot labels" if values.dim() == 2 else ""
        raise error(f"{expected}, found {values.dtype} of shape {tuple(values.shape)}{hint}")
    if len(values) and not values.is_meta and not is_traced() and (sync or values.device.type == "cpu"):
        low, high = (int(value) for value in values.aminmax())
        if low < 0 or (classes is not None and high >= classes):
            up = "up" if classes is None else f"to {classes - 1}"
            raise error(f"{where}: expected class numbers from 0 {up}, found {low} to {high}")
    return values.to(torch.int64)


def _kind(labels: Any) -> str:
    first = next(iter(labels), None) if isinstance(labels, list | tuple) else None
    return type(labels).__name__ if first is None else f"a {type(labels).__name__} of {type(first).__name__}"
