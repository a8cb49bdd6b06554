"""Subnets: the ordinary networks inside couplings, which never need to be inverted.

A subnet is a function ``(channels_in, channels_out, *, ...) -> nn.Module``, registered as an entry point of the group
``flowclf.subnets``. A recipe may set its keyword arguments. Its last layer starts at zero (:func:`starts_at_zero`), so that every
coupling starts as the identity.

:func:`takes_maps` marks a subnet for feature maps (B, C, H, W), :func:`takes_vectors` one for vectors (B, D); one without a mark is
called for either. A coupling on feature maps passes all pixels and conditions to a subnet for vectors, as one vector. Conditions
that are vectors are spread over the maps, or a second input of the module if the subnet has an argument ``context_channels``.
A subnet with an argument ``size`` gets the maps' height and width.
:func:`makes_vectors` marks a subnet of feature maps that returns vectors (B, channels_out), for a readout.

Example:
    >>> from torch import nn
    >>> @takes_vectors
    ... def linear(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Module:
    ...     return starts_at_zero(nn.Linear(channels_in, channels_out, bias=bias))
    >>> from flowclf.nodes import AdditiveCoupling
    >>> AdditiveCoupling([(4, 2, 2)], subnet=linear).subnet
    Linear(in_features=8, out_features=8, bias=True)
"""

from flowclf.subnets.building import (
    Subnet,
    build_subnet,
    gives_vectors,
    makes_vectors,
    starts_at_zero,
    takes_maps,
    takes_vectors,
    wants_context,
    wants_vectors,
)
from flowclf.subnets.convolutional import bottleneck, cnn, conditional_conv, conv, is_hooked, pointwise, pooling_stages, residual
from flowclf.subnets.dense import dense

__all__ = [
    "Subnet",
    "bottleneck",
    "build_subnet",
    "cnn",
    "conditional_conv",
    "conv",
    "dense",
    "gives_vectors",
    "is_hooked",
    "makes_vectors",
    "pointwise",
    "pooling_stages",
    "residual",
    "starts_at_zero",
    "takes_maps",
    "takes_vectors",
    "wants_context",
    "wants_vectors",
]
