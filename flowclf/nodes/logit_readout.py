"""A network that reads the class from everything else and adds what it found to the logits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from flowclf.argument_types import PositiveFloat, PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import channels_of, elements, positions
from flowclf.nodes.couplings import AdditiveCoupling, Subnet
from flowclf.nodes.logit_coupling import check_logit_channels, mean_map
from flowclf.subnets import build_subnet

__all__ = ["LogitReadout"]


class LogitReadout(AdditiveCoupling):
    r"""logits <- logits + r(everything else): an additive coupling whose changed part is what the head reads the logits from.

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
        GraphError: fewer channels than classes, or a vector with nothing else than logits.

    Example:
        >>> node = LogitReadout([(16, 7, 7)], classes=10, subnet={"residual": {"width": 8}})
        >>> x = torch.randn(2, 16, 7, 7)
        >>> (z,), log_det = node((x,))
        >>> torch.allclose(z[:, 10:], x[:, 10:]), log_det
        (True, tensor([0., 0.]))
    """

    keeps_grid = False

    def __init__(
        self,
        dims_in: Iterable[Sequence[int]],
        dims_c: Iterable[Sequence[int]] | None = None,
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
        self.classes = classes
        self.features = features
        self.logit_scale = logit_scale
        super().__init__(dims_in, dims_c, subnet="residual" if subnet is None and len(shape) == 3 else subnet)

    def _parts(self) -> tuple[int, int]:
        channels = channels_of(self.shape)
        return (channels if len(self.shape) == 3 else channels - self.classes), self.classes

    def _make_subnet(self, spec: Subnet, channels_in: int, channels_out: int) -> nn.Module:
        if len(self.shape) == 1:
            return super()._make_subnet(spec, channels_in, channels_out)
        body = build_subnet(spec, channels_in, self.features, spatial=True)
        last = nn.Linear(self.features * positions(self.shape), channels_out)
        nn.init.zeros_(last.bias)
        return nn.Sequential(body, nn.Flatten(), last)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = x[:, : self.classes]
        if x.dim() == 2:
            return x[:, self.classes :], first
        means = mean_map(first)
        return torch.cat((first - means, x[:, self.classes :]), dim=1), means.flatten(1) * math.sqrt(positions(self.shape))

    def _join(self, given: Tensor, changed: Tensor) -> Tensor:
        if given.dim() == 2:
            return torch.cat((changed, given), dim=1)
        first = given[:, : self.classes]
        means = (changed / math.sqrt(positions(self.shape)))[:, :, None, None]
        return torch.cat((first - mean_map(first) + means, given[:, self.classes :]), dim=1)

    def reading(self, z: Tensor) -> Tensor:
        """What r finds in an input or an output of the node, (B, K), in logits."""
        return super()._parameters_from(self._split(z)[0], ())

    def _parameters_from(self, given: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        return super()._parameters_from(given, conditions) / self.logit_scale
