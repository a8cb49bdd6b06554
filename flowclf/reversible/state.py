"""State that must be restored when a node runs a second time: a second run sees it as the first did, and leaves it unchanged.

Random states, autocast, training flags, buffers that a forward pass changes, and parameters that were replaced since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from flowclf.reversible.plan import Site


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """States of torch's global random number generators, on the CPU and on the device of the data."""
    if device.type == "cuda":
        return torch.get_rng_state(), torch.cuda.get_rng_state(device)
    return (torch.get_rng_state(),)


@contextlib.contextmanager
def random_state_as(states: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Set the random states within the block and restore the present ones afterwards; without states, do nothing."""
    if not states:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1], device)
        yield


AutocastMode: TypeAlias = tuple[str, bool, torch.dtype]


def autocast_modes(device: torch.device) -> list[AutocastMode]:
    """Autocast settings (device type, enabled, dtype) of the CPU and of the device of the data."""
    types = dict.fromkeys(("cpu", device.type))
    return [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in types]


@contextlib.contextmanager
def in_autocast(modes: Sequence[AutocastMode]) -> Iterator[None]:
    """Restore autocast settings within the block.

    Autocast's cache is off: a weight that was cast without gradients would be reused in the run that needs its gradient.
    """
    with contextlib.ExitStack() as stack:
        for kind, enabled, dtype in modes:
            stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False))
        yield


Mode: TypeAlias = tuple[bool, Any]


def modes_of(modules: Sequence[nn.Module]) -> list[Mode]:
    """Training flag and subnet precision of each module."""
    return [(module.training, module.__dict__.get("subnet_dtype")) for module in modules]


def _set_mode(module: nn.Module, mode: Mode) -> None:
    module.training = mode[0]
    if "subnet_dtype" in module.__dict__:
        module.__dict__["subnet_dtype"] = mode[1]


@contextlib.contextmanager
def modes_as(modules: Sequence[nn.Module], modes: Sequence[Mode]) -> Iterator[None]:
    """Set modes within the block and restore the present ones afterwards."""
    pairs = zip(modules, modes, modes_of(modules), strict=True)
    changed = [(module, mode, present) for module, mode, present in pairs if mode != present]
    for module, mode, _ in changed:
        _set_mode(module, mode)
    try:
        yield
    finally:
        for module, _, present in changed:
            _set_mode(module, present)


Watched: TypeAlias = list[tuple[nn.Module, str, Tensor, int, Tensor | None]]
"""Owner, name, tensor and version of each buffer, and a copy if the old value may matter."""


def watch_buffers(modules: Sequence[nn.Module]) -> Watched:
    """Record the buffers of modules before a forward pass."""
    watched: Watched = []
    for owner in modules:
        # A norm's output in training does not depend on its running statistics, so their old values are not needed.
        matters = owner.training and not isinstance(owner, _NormBase)
        for name, value in owner._buffers.items():
            if value is not None:
                watched.append((owner, name, value, value._version, value.clone() if matters else None))
    return watched


def changed_buffers(watched: Watched) -> list[tuple[nn.Module, str, Tensor | None]]:
    """Buffers that were written to or replaced since: owner, name, and the old value if it may matter."""
    return [
        (owner, name, before)
        for owner, name, value, version, before in watched
        if owner._buffers.get(name) is not value
        or value._version != version
        # The kernels of norms update the statistics without increasing the tensor's version.
        or (owner.training and isinstance(owner, _NormBase))
    ]


@contextlib.contextmanager
def buffers_as(buffers: Sequence[tuple[nn.Module, str]], values: Sequence[Tensor | None]) -> Iterator[None]:
    """Replace buffers within the block by copies of ``values`` (of the present value for None), so that a run changes neither."""
    kept = [owner._buffers[name] for owner, name in buffers]
    for (owner, name), value, present in zip(buffers, values, kept, strict=True):
        value = present if value is None else value
        owner._buffers[name] = None if value is None else value.clone()
    try:
        yield
    finally:
        for (owner, name), present in zip(buffers, kept, strict=True):
            owner._buffers[name] = present


@contextlib.contextmanager
def parameters_as(sites: Sequence[Site], values: Sequence[Tensor]) -> Iterator[dict[int, Tensor]]:
    """Put the first run's parameters in place within the block; yield, by index, the tensors to differentiate with respect to.

    These are the parameters themselves, unless others have replaced them since (``torch.func.functional_call``) or they have hooks,
    which would run here and again when the gradient arrives.
    """
    leaves: dict[int, Tensor] = {}
    exchanged: list[tuple[nn.Module, str, nn.Parameter | None]] = []
    for module, name, number in sites:
        value = values[number]
        present = module._parameters.get(name)
        if number not in leaves:
            leaves[number] = value if present is value and not value._backward_hooks else value.detach().requires_grad_()
        if present is not leaves[number]:
            exchanged.append((module, name, present))
            parameters: Mapping[str, Any] = module._parameters
            parameters[name] = leaves[number]  # type: ignore[index]
    try:
        yield leaves
    finally:
        for module, name, present in exchanged:
            module._parameters[name] = present
