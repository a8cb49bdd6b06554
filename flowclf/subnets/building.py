"""From a subnet's spec to its module, and the marks by which a subnet says what it takes."""

from __future__ import annotations

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


def starts_at_zero(layer: M) -> M:
    """The layer with its parameters set to zero, as a subnet's last layer starts."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _function(spec: Any) -> Callable[..., nn.Module]:
    """The function that a spec stands for."""
    function: Callable[..., nn.Module] = spec if callable(spec) else registry.subnets.get(name_and_arguments(spec, "subnet")[0])
    return function


def wants_vectors(spec: Subnet) -> bool:
    """Whether a spec stands for a subnet that takes vectors (B, D) only; the default takes both."""
    return spec is not None and getattr(_function(spec), "takes", None) == "vectors"


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
    spec = ("conv" if spatial else "dense") if spec is None else spec
    function = _function(spec)
    found, takes = ("feature maps", "maps") if spatial else ("vectors", "vectors")
    if getattr(function, "takes", takes) != takes:
        needed = "vectors (D,)" if spatial else "feature maps (C, H, W)"
        name = getattr(function, "__name__", repr(function))
        raise GraphError(f"subnet {name} takes {needed}, found {found}")
    module: nn.Module = function(channels_in, channels_out) if callable(spec) else build("subnets", spec, channels_in, channels_out)
    return module
