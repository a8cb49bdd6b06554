"""From a subnet's spec to its module, and the marks by which a subnet says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from flowclf import registry
from flowclf.arguments import SubnetSpec
from flowclf.errors import GraphError

__all__ = ["Subnet", "build_subnet", "starts_at_zero", "takes_maps", "takes_vectors", "wants_vectors"]

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


def starts_at_zero(layer: M) -> M:
    """The layer with its parameters set to zero, as a subnet's last layer starts."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _found(spec: Subnet) -> tuple[Callable[..., nn.Module], str, dict[str, Any]]:
    """The function that a spec stands for, its name in messages, and its keyword arguments."""
    if callable(spec):
        return spec, getattr(spec, "__name__", repr(spec)), {}
    name, arguments = registry.subnets.named(spec)
    return registry.subnets.get(name), name, arguments


def wants_vectors(spec: Subnet) -> bool:
    """Whether a spec stands for a subnet that takes vectors (B, D) only; the default takes what there is."""
    return spec is not None and getattr(_found(spec)[0], "takes", None) == "vectors"


def build_subnet(spec: Subnet, channels_in: int, channels_out: int, *, spatial: bool) -> nn.Module:
    """The module that a spec stands for.

    Args:
        spec: a registered name, a mapping of one name to its arguments, a function (channels_in, channels_out) -> module, or
            None for the default: ``conv`` for feature maps, ``dense`` for vectors.
        channels_in: channels of the input, conditions included.
        channels_out: channels of the output.
        spatial: whether the input is feature maps.

    Raises:
        GraphError: if the spec has another form, the subnet does not take the arguments, or it does not take such inputs.
        RegistryError: if the name is not registered.
    """
    function, name, arguments = _found(("conv" if spatial else "dense") if spec is None else spec)
    found, takes = ("feature maps", "maps") if spatial else ("vectors", "vectors")
    if getattr(function, "takes", takes) != takes:
        needed = "vectors (D,)" if spatial else "feature maps (C, H, W)"
        raise GraphError(f"subnet {name} takes {needed}, found {found}")
    if callable(spec):
        return function(channels_in, channels_out)
    try:
        return function(channels_in, channels_out, **arguments)
    except TypeError as error:
        raise GraphError(f"subnet {name}: {error}") from error
