"""Subnets from their specs, and marks for the inputs that they accept."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from flowclf import registry
from flowclf.argument_types import SubnetSpec
from flowclf.component_schema.components import build
from flowclf.component_schema.specs import name_and_arguments
from flowclf.errors import GraphError

Subnet = SubnetSpec | Callable[[int, int], nn.Module] | None
"""A registered name, a mapping of one name to its arguments, a function (channels_in, channels_out) -> module, or the default."""

F = TypeVar("F", bound=Callable[..., nn.Module])
M = TypeVar("M", bound=nn.Module)


def takes_maps(subnet: F) -> F:
    """Decorator: the subnet takes feature maps (B, C, H, W) only, and keeps their height and width."""
    subnet.takes = "maps"  # type: ignore[attr-defined]
    return subnet


def takes_vectors(subnet: F) -> F:
    """Decorator: the subnet takes vectors (B, D) only."""
    subnet.takes = "vectors"  # type: ignore[attr-defined]
    return subnet


def makes_vectors(subnet: F) -> F:
    """Decorator: the subnet takes feature maps (B, C, H, W) and returns vectors (B, channels_out), for a readout."""
    subnet.makes = "vectors"  # type: ignore[attr-defined]
    return takes_maps(subnet)


def starts_at_zero(layer: M) -> M:
    """Set the parameters of a subnet's last layer to zero; return the layer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _function(spec: Any) -> Callable[..., nn.Module]:
    function: Callable[..., nn.Module] = spec if callable(spec) else registry.subnets.get(name_and_arguments(spec, "subnet")[0])
    return function


def wants_vectors(spec: Subnet) -> bool:
    """Whether a subnet takes vectors (B, D) only."""
    return spec is not None and getattr(_function(spec), "takes", None) == "vectors"


def wants_context(spec: Subnet) -> bool:
    """Whether a subnet takes vectors beside feature maps: it has an argument ``context_channels``."""
    return spec is not None and "context_channels" in inspect.signature(_function(spec)).parameters


def gives_vectors(spec: Subnet) -> bool:
    """Whether a subnet makes one vector of feature maps."""
    return spec is not None and getattr(_function(spec), "makes", None) == "vectors"


def build_subnet(
    spec: Subnet,
    channels_in: int,
    channels_out: int,
    *,
    spatial: bool,
    pooled: bool = False,
    context_channels: int | None = None,
    size: tuple[int, ...] | None = None,
) -> nn.Module:
    """Build a subnet; None is the default, ``conv`` for feature maps (``spatial``) and ``dense`` for vectors.

    Args:
        spec: the spec.
        channels_in, channels_out: its arguments.
        spatial: whether it gets feature maps.
        pooled: whether it may return vectors for feature maps.
        context_channels: passed to a subnet that takes a context.
        size: height and width of the feature maps, passed to a subnet that has an argument ``size``.

    Raises:
        GraphError: if the spec has another form, or the subnet does not accept the arguments or such inputs.
        RegistryError: if the name is not registered.
    """
    spec = ("conv" if spatial else "dense") if spec is None else spec
    function = _function(spec)
    if getattr(function, "takes", None) == ("vectors" if spatial else "maps"):
        needed, found = ("vectors (D,)", "feature maps") if spatial else ("feature maps (C, H, W)", "vectors")
        raise GraphError(f"subnet {getattr(function, '__name__', repr(function))} takes {needed}, found {found}")
    if gives_vectors(spec) and not pooled:
        raise GraphError(f"subnet {getattr(function, '__name__', repr(function))} returns vectors (D,), for a logit_readout only")
    supplied: dict[str, Any] = {} if context_channels is None else {"context_channels": context_channels}
    if size is not None and "size" in inspect.signature(function).parameters:
        supplied["size"] = size
    if callable(spec):
        module: nn.Module = spec(channels_in, channels_out, **supplied)
    else:
        module = build("subnets", spec, channels_in, channels_out, **supplied)
    return module
