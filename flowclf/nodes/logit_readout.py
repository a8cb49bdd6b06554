"""A network that adds to the logits a function of all other latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowclf.argument_types import PositiveFloat, PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import Shape, Shapes, positions
from flowclf.nodes.conditional import ConditionalNode
from flowclf.nodes.logit_coupling import check_logit_channels, mean_map
from flowclf.nodes.transformers import Transformer
from flowclf.subnets import Subnet, build_subnet


class LogitReadout(ConditionalNode):
    r"""logits <- logits + r(all other latents), with a network r: an additive coupling in the coordinates of the head.

    A :class:`SplitHead` with ``dct=True`` reads the logits from the means of the first K channels, times sqrt(H W); this node
    changes those means and nothing else. So r may be any classifier, and the map is a bijection of log-determinant 0. On vectors
    the logits are the first K entries.

    Args:
        classes: K, at most the number of channels.
        subnet: spec of a registered subnet, by default ``residual`` for feature maps and ``dense`` for vectors. For feature maps it
            returns ``features`` maps, from which a linear layer computes K numbers.
        features: maps before the linear layer; unused for vectors.
        logit_scale: as in the head, so that the output of r is in logits.

    Raises:
        GraphError: if there are fewer channels than classes, or no latents besides the logits.

    Example:
        >>> node = LogitReadout([(16, 7, 7)], classes=10, subnet={"residual": {"width": 8}})
        >>> x = torch.randn(2, 16, 7, 7)
        >>> (z,), log_det = node((x,))
        >>> torch.allclose(z[:, 10:], x[:, 10:]), log_det
        (True, tensor([0., 0.]))
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        classes: int,
        subnet: Subnet = None,
        features: PositiveInt = 32,
        logit_scale: PositiveFloat = 1.0,
    ) -> None:
        shape = check_logit_channels(dims_in, classes, "LogitReadout")
        if math.prod(shape) <= classes:
            raise GraphError(f"LogitReadout needs more to read from than {classes} logits, found shape {shape}")

        def with_linear_layer(channels_in: int, channels_out: int) -> nn.Module:
            body = build_subnet("residual" if subnet is None else subnet, channels_in, features, spatial=True)
            last = nn.Linear(features * positions(shape), channels_out)
            nn.init.zeros_(last.bias)
            return nn.Sequential(body, nn.Flatten(), last)

        super().__init__(
            dims_in,
            dims_c,
            partition=_Logits(shape, classes),
            transformer=_AddLogits(logit_scale),
            subnet=subnet if len(shape) == 1 else with_linear_layer,
        )

    def reading(self, z: Tensor) -> Tensor:
        """The output of r, (B, K), in logits, from an input or an output of the node."""
        return self.parameters_of(self.partition.split(z)[0], ())


class _Logits:
    """The latents from which a head reads the K logits, (B, K), are changed, and all others are given."""

    def __init__(self, shape: Shape, classes: int) -> None:
        channels = shape[0]
        self.changed = classes
        self.given = channels if len(shape) == 3 else channels - classes
        self.scale = math.sqrt(positions(shape))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = x[:, : self.changed]
        if x.dim() == 2:
            return x[:, self.changed :], first
        means = mean_map(first)
        return torch.cat((first - means, x[:, self.changed :]), dim=1), means.flatten(1) * self.scale

    def join(self, given: Tensor, changed: Tensor) -> Tensor:
        if given.dim() == 2:
            return torch.cat((changed, given), dim=1)
        first = given[:, : self.changed]
        means = (changed / self.scale)[:, :, None, None]
        return torch.cat((first - mean_map(first) + means, given[:, self.changed :]), dim=1)


class _AddLogits(Transformer):
    """Adds logits to latents that the head will multiply by ``logit_scale``."""

    exact_inverse = True

    def __init__(self, logit_scale: float) -> None:
        super().__init__()
        self.logit_scale = logit_scale

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        return x + parameters / self.logit_scale, None

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        return z - parameters / self.logit_scale, None
