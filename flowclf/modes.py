"""Context managers for evaluation without TF32, and for computation that is reproducible to the bit."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")


def is_traced() -> bool:
    """Whether tensors may be stand-ins now, not to be kept: in compile, export, functorch, jit, or under a dispatch mode."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )


def is_exported() -> bool:
    """Whether operations are recorded to run elsewhere, by ``torch.export``, ``torch.onnx`` or ``torch.jit.trace``."""
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None


def cached_constant(make: Callable[P, R]) -> Callable[P, R]:
    """Decorator for a function that makes constant tensors: they are kept, except for those made while :func:`is_traced`.

    They are made outside of inference mode, in which no tensor could be trained with later.
    """
    cached = functools.lru_cache(maxsize=64)(make)

    @functools.wraps(make)
    def constant(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_traced():
            return make(*args, **kwargs)
        with torch.inference_mode(False):
            return cached(*args, **kwargs)  # type: ignore[arg-type]

    constant.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
    return constant


@contextlib.contextmanager
def learning() -> Iterator[None]:
    """Context with gradients, also within a caller's ``torch.no_grad`` or ``torch.inference_mode``; a decorator, too.

    Example:
        >>> with torch.inference_mode(), learning():
        ...     torch.ones(2, requires_grad=True).sum().backward()
    """
    # Leaving inference mode also sets whether there are gradients.
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context with eval mode, no gradients, no TF32 in convolutions, and outside of inference mode.

    All previous settings are restored afterwards.

    TF32, torch's default for float32 convolutions on a GPU, has 10 bits of mantissa: inverse errors would be measured as 1e-3.

    Example:
        >>> net = nn.Dropout()
        >>> with evaluating(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    # Since torch 2.9 each kind of operation has its own setting, and reading the old one fails if they differ.
    cudnn = torch.backends.cudnn
    owner, setting, full = (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    rounding = getattr(owner, setting)
    try:
        setattr(owner, setting, full)
        module.eval()
        # Probes are trained on what is computed here, which no tensor of inference mode allows.
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        setattr(owner, setting, rounding)
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Context in which a module's parameters take part without getting a gradient.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> with frozen(net):
        ...     net(torch.ones(1, 2)).requires_grad
        False
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def fixed(module: nn.Module) -> Iterator[None]:
    """Context in which a module is a fixed function, which gradients pass: frozen, and in eval mode.

    Example:
        >>> net = nn.Dropout()
        >>> with fixed(net):
        ...     net(torch.ones(3))
        tensor([1., 1., 1.])
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with frozen(module):
            yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Context in which a computation returns the same bits each time on one device; torch's settings are restored afterwards.

    A CPU needs no settings. On a GPU, operations use deterministic algorithms, and cuDNN does not select algorithms by timing;
    operations without a deterministic algorithm still run, with a warning. ``CUBLAS_WORKSPACE_CONFIG`` is set, unless it already
    is, and stays set.

    Example:
        >>> with repeatable(torch.device("cpu")):
        ...     torch.ones(2).sum().item()
        2.0
    """
    if device.type != "cuda":
        yield
        return
    # Older releases of torch require it before they consider cuBLAS's matrix products deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=warn_only or not enabled)
    # All memory is written before it is read, so filling it first would only cost time.
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
