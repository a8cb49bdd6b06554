"""Modes to measure in and to repeat work in: evaluation without TF32, and the same bits from the same work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["evaluating", "repeatable"]


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients and no TF32 in convolutions within the block; what was set before is set again afterwards.

    By default torch lets a GPU round what convolutions of float32 multiply to TF32, 10 bits of mantissa. What is then off by a
    thousandth is not the classifier's inverse but its measurement. Every submodule gets its own mode back.

    Example:
        >>> net = nn.Dropout()
        >>> with evaluating(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    # Since torch 2.9 each kind of operation has a setting of its own, and the old one cannot be read where they differ.
    cudnn = torch.backends.cudnn
    owner, setting, full = (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    rounding = getattr(owner, setting)
    try:
        setattr(owner, setting, full)
        module.eval()
        with torch.no_grad():
            yield
    finally:
        setattr(owner, setting, rounding)
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """The same work on the same device gives the same bits within the block; torch's settings are put back afterwards.

    A CPU needs nothing for it. A GPU is told to add up in a fixed order, which some operations do not by themselves
    (``torch.use_deterministic_algorithms``), and cuDNN not to choose by time; what has no such order goes on as it is, and torch
    warns of it. The environment variable ``CUBLAS_WORKSPACE_CONFIG`` is set, if it is not, and stays set.

    Example:
        >>> with repeatable(torch.device("cpu")):
        ...     torch.ones(2).sum().item()
        2.0
    """
    if device.type != "cuda":
        yield
        return
    # Older releases of torch ask for it before they call a matrix product of cuBLAS repeatable.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=warn_only or not enabled)
    # All memory is written before it is read; filling it first would only take time.
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
