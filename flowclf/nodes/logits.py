"""Nodes that keep what the head reads as logits, or change nothing else: couplings given the logits, and a readout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowclf.argument_types import NonNegativeInt, PositiveFloat, PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import LogitPlace, Shapes, positions
from flowclf.nodes.conditional import ConditionalNode, Halves
from flowclf.nodes.logit_space import LogitSpace, logit_space
from flowclf.nodes.transformers import Affine, Transformer, bounded_affine
from flowclf.subnets import Subnet, build_subnet, gives_vectors


class ClassProbabilities(nn.Module):
    """softmax of the logits that the head will read from a node's input, (B, K).

    Args:
        space: where it reads them.
        logit_scale: as in the head, so that the probabilities are the classifier's.
        detach: stop the gradient.
    """

    def __init__(self, space: LogitSpace, logit_scale: float, detach: bool) -> None:
        super().__init__()
        self.space, self.logit_scale, self.detach = space, logit_scale, detach

    def forward(self, x: Tensor) -> Tensor:
        """Compute the probabilities."""
        # Logits of the two directions differ by rounding; their softmax is smooth and bounded, so that does not grow.
        probabilities = (self.logit_scale * self.space.read(x)).softmax(1)
        return probabilities.detach() if self.detach else probabilities


class LogitCoupling(ConditionalNode):
    """An affine coupling before the head that leaves the logits unchanged and takes their softmax as a condition.

    So the flow can remove from the nuisances what the logits explain, as a factorial prior requires. Where a
    :class:`SplitHead` with ``dct=True`` reads a logit from the mean of a channel, that mean is kept, and the pixels around it are
    scaled by one factor and shifted by a map of mean 0; where it reads pixels or entries, these pass unchanged.

    Args:
        classes: K.
        subnet: as in :class:`AffineCoupling`.
        bound: as in :class:`AffineCoupling`.
        swap: transform the first half, given the second.
        logit_scale: as in the head, so that the probabilities are the classifier's.
        dct: as in the head.
        squeezes: number of squeezes by 2 between this node and the head.
        detach_logits: the subnet gets the probabilities without gradient, and 0 in place of the logits, so that no gradient of the
            likelihood of the nuisances reaches what computes the logits. On feature maps without ``dct`` it always gets the 0.

    Raises:
        GraphError: if the head would have fewer channels than classes.

    Example:
        >>> import torch
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
        dct: bool = True,
        squeezes: NonNegativeInt = 0,
        detach_logits: bool = False,
    ) -> None:
        space = logit_space(dims_in, LogitPlace(classes, dct, squeezes), "LogitCoupling")
        halves = Halves(space.shape, swap, "LogitCoupling")
        first, last = space.channels(0, halves.sizes[0]), space.channels(halves.sizes[0], space.shape[0])
        given, changed = (last, first) if swap else (first, last)
        super().__init__(
            dims_in,
            dims_c,
            partition=halves,
            transformer=_AffineBesides(changed, bound),
            subnet=subnet,
            context=ClassProbabilities(space, logit_scale, detach_logits),
            context_channels=classes,
        )
        self.hidden = given if detach_logits or not (dct or len(space.shape) == 1) else None
        self.preserves_logits = space.place

    def parameters_of(self, given: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """As for any coupling, from the given half, perhaps without the logits."""
        return super().parameters_of(given if self.hidden is None else self.hidden.without(given), conditions)


class _AffineBesides(Transformer):
    """An affine map that keeps the logits."""

    parameters_per_entry = Affine.parameters_per_entry
    exact_inverse = True

    def __init__(self, space: LogitSpace, bound: float) -> None:
        super().__init__()
        self.space = space
        self.bound = bound

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        raw, shift = bounded_affine(parameters, self.bound)
        log_scale = self.space.scales(raw)
        return self.space.restore(shift.addcmul(x, log_scale.exp()), x), self.space.log_det(log_scale) if log_det else None

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        raw, shift = bounded_affine(parameters, self.bound)
        log_scale = self.space.scales(raw)
        x = self.space.restore((z - shift) * (-log_scale).exp(), z)
        return x, -self.space.log_det(log_scale) if log_det else None


class LogitReadout(ConditionalNode):
    r"""logits <- logits + r(all other latents), with a network r: an additive coupling in the coordinates of the head.

    This node changes what a :class:`SplitHead` will read as logits and nothing else. So r may be any classifier, and the map is a
    bijection of log-determinant 0.

    Args:
        classes: K.
        subnet: spec of a registered subnet, by default ``residual`` for feature maps and ``dense`` for vectors. For feature maps it
            returns K numbers, as ``cnn`` does, or ``features`` maps, from which a linear layer computes K numbers.
        features: maps before the linear layer; unused for vectors, and if the subnet returns K numbers.
        logit_scale: as in the head, so that the output of r is in logits.
        dct: as in the head.
        squeezes: number of squeezes by 2 between this node and the head.

    Raises:
        GraphError: if the head would have fewer channels than classes, or there are no latents besides the logits.

    Example:
        >>> import torch
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
        dct: bool = True,
        squeezes: NonNegativeInt = 0,
    ) -> None:
        space = logit_space(dims_in, LogitPlace(classes, dct, squeezes), "LogitReadout")
        shape = space.shape
        if math.prod(shape) <= classes:
            raise GraphError(f"LogitReadout needs more to read from than {classes} logits, found shape {shape}")
        spec = "residual" if subnet is None else subnet

        def with_linear_layer(channels_in: int, channels_out: int) -> nn.Module:
            body = build_subnet(spec, channels_in, features, spatial=True, size=shape[1:])
            last = nn.Linear(features * positions(shape), channels_out)
            nn.init.zeros_(last.bias)
            return nn.Sequential(body, nn.Flatten(), last)

        super().__init__(
            dims_in,
            dims_c,
            partition=_Logits(space),
            transformer=_AddLogits(logit_scale),
            subnet=subnet if len(shape) == 1 or gives_vectors(spec) else with_linear_layer,
            pooled=True,
        )

    def reading(self, z: Tensor) -> Tensor:
        """The output of r, (B, K), in logits, from an input or an output of the node."""
        return self.parameters_of(self.partition.split(z)[0], ())


class _Logits(nn.Module):
    """The latents from which a head reads the K logits, (B, K), are changed, and all others are given."""

    def __init__(self, space: LogitSpace) -> None:
        super().__init__()
        self.space = space
        self.changed = space.place.classes
        self.given = space.shape[0] if len(space.shape) == 3 else space.shape[0] - self.changed

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        given = x[:, self.changed :] if x.dim() == 2 else self.space.without(x)
        return given, self.space.read(x)

    def join(self, given: Tensor, changed: Tensor) -> Tensor:
        if given.dim() == 2:
            return torch.cat((changed, given), dim=1)
        return self.space.write(given, changed)


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
