"""Host memory: keeping what is freed, and moving tensors to a device without waiting.

Memory that is freed and soon wanted again: the C library is taught not to give it back to the system in between.

Between two layers megabytes are freed and taken again. glibc returns what lies at the end of its heap as soon as it is larger than
twice the largest block that it mapped by itself and was given back, 256 kB in a fresh process; each return costs as many page
faults as the memory has pages when it is wanted again. Where activations are recomputed that was a third of a training step's
time.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["keep_freed_memory", "moved"]

_BYTES = 2**25 - 2**16
"""The most that moves glibc's thresholds, 32 MiB, less what it adds for its own use."""


@functools.cache
def keep_freed_memory() -> None:
    """Let the process keep up to 64 MiB of freed memory, once and for all.

    To free one large block is what moves glibc's thresholds; none of its pages is touched, so it takes no memory. Thresholds that
    someone set (``MALLOC_TRIM_THRESHOLD_``) do not move, and other C libraries take no notice.
    """
    torch.empty(_BYTES, dtype=torch.uint8)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; from the host to a GPU, without waiting for what the GPU has still to do.

    Example:
        >>> moved(torch.ones(3), torch.device("cpu")).sum()
        tensor(3.)
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
