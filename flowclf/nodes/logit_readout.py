"""A network that reads the class from everything else and adds what it found to the logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowclf.argument_types import PositiveFloat, PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import Shape, Shapes, channels_of, elements, positions
from flowclf.nodes.conditional import ConditionalNode
from flowclf.nodes.logit_coupling import check_logit_channels, mean_map
from flowclf.nodes.transformers import Transformer
from flowclf.subnets import Subnet, build_subnet


class LogitReadout(ConditionalNode):
    r"""logits <- logits + r(everything else), with r a network (an additive coupling in the coordinates that the head uses).

    A :class:`SplitHead` with ``dct=True`` reads the logits from the means of the first K channels, times sqrt(H W). This node
    changes those means and nothing else. So r may be any classifier, as deep as one likes and without an inverse, the
    map stays a bijection of log-determinant 0, and the nuisances need not be bent for the logits' sake: what is read is one
    thing, what is left is another. On vectors the logits are the first K entries.

    Args:
        classes: K, at most the number of channels.
        subnet: spec of a registered subnet, by default ``residual`` for feature maps and ``dense`` for vectors. Of feature maps it
            gives ``features`` maps, which a linear layer turns into K numbers.
        features: maps before the linear layer; vectors have none.
        logit_scale: that of the head, so that r speaks in logits.

    Raises:
        GraphError: if there are fewer channels than classes, or a vector holds nothing but logits.

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
        dims_in = list(dims_in)
        shape = check_logit_channels(dims_in, classes, "LogitReadout")
        if elements(shape) <= classes:
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
        """What r finds in an input or an output of the node, (B, K), in logits."""
        return self.parameters_of(self.partition.split(z)[0], ())


class _Logits:
    """Everything else is given, and the latents that a head reads the K logits from, (B, K), are changed."""

    def __init__(self, shape: Shape, classes: int) -> None:
        channels = channels_of(shape)
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
