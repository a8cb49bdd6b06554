"""Nodes in the coordinates of the head: couplings given the logits, and a readout that adds to them."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from flowclf.argument_types import PositiveFloat, PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import Shape, Shapes, positions, single_shape
from flowclf.nodes.conditional import ConditionalNode, Halves
from flowclf.nodes.transformers import Affine, Transformer, bounded_affine
from flowclf.subnets import Subnet, build_subnet


class LogitCoupling(ConditionalNode):
    """An affine coupling before the head that leaves the logits unchanged and takes their softmax as a condition.

    A :class:`SplitHead` with ``dct=True`` reads the logits from the means of the first K channels, times sqrt(H W). These channels
    keep their means; around it each is scaled by one factor for all pixels and shifted by a map of mean 0. So the flow can remove
    from the nuisances what the logits explain, as a factorial prior requires. On vectors the logits are the first K entries, which
    pass unchanged.

    Args:
        classes: K, at most the number of channels.
        subnet: as in :class:`AffineCoupling`.
        bound: as in :class:`AffineCoupling`.
        swap: transform the first half, given the second.
        logit_scale: as in the head, so that the probabilities are the classifier's.

    Raises:
        GraphError: if there are fewer channels than classes.

    Example:
        >>> node = LogitCoupling([(16, 7, 7)], classes=10)
        >>> x = torch.randn(2, 16, 7, 7)
        >>> (z,), _ = node((x,))
        >>> torch.allclose(z[:, :10].mean((2, 3)), x[:, :10].mean((2, 3)), atol=1e-6)
        True
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        classes: int,
        subnet: Subnet = None,
        bound: PositiveFloat = 1.5,
        swap: bool = False,
        logit_scale: PositiveFloat = 1.0,
    ) -> None:
        shape = _check_logit_channels(dims_in, classes, "LogitCoupling")
        halves = Halves(shape, swap, "LogitCoupling")
        # The transformed channels that carry a logit come first.
        protected = max(0, min(classes - (0 if swap else halves.given), halves.changed))
        super().__init__(
            dims_in,
            dims_c,
            partition=halves,
            transformer=_AffineAroundMeans(protected, bound),
            subnet=subnet,
            context=functools.partial(_class_probabilities, classes=classes, scale=logit_scale * math.sqrt(positions(shape))),
            context_channels=classes,
        )
        self.preserves_logits_of = classes


def _class_probabilities(x: Tensor, classes: int, scale: float) -> Tensor:
    # Logits of the two directions differ by rounding; their softmax is smooth and bounded, so that does not grow.
    return (scale * _mean_map(x[:, :classes])).flatten(1).softmax(1)


class _AffineAroundMeans(Transformer):
    """An affine map that keeps the means of the first ``protected`` channels and scales those around them by one factor each."""

    parameters_per_entry = Affine.parameters_per_entry
    exact_inverse = True

    def __init__(self, protected: int, bound: float) -> None:
        super().__init__()
        self.protected = protected
        self.bound = bound

    def _parts(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The means that are kept, 0 in other channels; log-scale and shift around them."""
        log_scale, shift = bounded_affine(parameters, self.bound)
        n = self.protected
        if n:
            uniform = _mean_map(log_scale[:, :n]).expand_as(log_scale[:, :n])
            log_scale = torch.cat((uniform, log_scale[:, n:]), dim=1)
            shift = torch.cat((shift[:, :n] - _mean_map(shift[:, :n]), shift[:, n:]), dim=1)
        means = _mean_map(x[:, :n])
        means = torch.cat((means, means.new_zeros(means.shape[0], x.shape[1] - n, *means.shape[2:])), dim=1)
        return means, log_scale, shift

    def _log_det(self, log_scale: Tensor) -> Tensor:
        # The mean of a protected channel is one direction that is not scaled.
        return log_scale.flatten(1).sum(1) - _mean_map(log_scale[:, : self.protected]).flatten(1).sum(1)

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        means, log_scale, shift = self._parts(x, parameters)
        z = means + torch.addcmul(shift, x - means, log_scale.exp())
        return z, self._log_det(log_scale) if log_det else None

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        means, log_scale, shift = self._parts(z, parameters)
        x = means + (z - means - shift) * (-log_scale).exp()
        return x, -self._log_det(log_scale) if log_det else None


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
        shape = _check_logit_channels(dims_in, classes, "LogitReadout")
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
        means = _mean_map(first)
        return torch.cat((first - means, x[:, self.changed :]), dim=1), means.flatten(1) * self.scale

    def join(self, given: Tensor, changed: Tensor) -> Tensor:
        if given.dim() == 2:
            return torch.cat((changed, given), dim=1)
        first = given[:, : self.changed]
        means = (changed / self.scale)[:, :, None, None]
        return torch.cat((first - _mean_map(first) + means, given[:, self.changed :]), dim=1)


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


def _mean_map(x: Tensor) -> Tensor:
    """Each channel's mean over its pixels, (B, C, 1, 1); vectors (B, D) as they are."""
    return x.mean((2, 3), keepdim=True) if x.dim() == 4 else x


def _check_logit_channels(dims_in: Shapes, classes: int, node: str) -> Shape:
    """The one input shape of a node before the head; a GraphError if there are fewer channels than classes."""
    shape = single_shape(dims_in, node)
    if shape[0] < classes:
        raise GraphError(f"{node} needs a channel for each of {classes} classes, found shape {shape}")
    return shape
