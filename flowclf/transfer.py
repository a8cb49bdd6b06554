"""Tensors from the host to where they are needed."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["moved"]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; from the host to a GPU, without waiting for what the GPU has still to do.

    Example:
        >>> moved(torch.ones(3), torch.device("cpu")).sum()
        tensor(3.)
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
