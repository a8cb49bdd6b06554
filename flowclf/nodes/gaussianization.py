"""One monotonic map of all entries that makes their distribution Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flowclf.argument_types import NonNegativeInt, PositiveFloat, PositiveInt
from flowclf.errors import GraphError
from flowclf.nodes.base import LogitPlace, Shapes
from flowclf.nodes.initialization import DataInitializedNode
from flowclf.nodes.logit_space import LogitSpace, logit_space
from flowclf.nodes.rational_quadratic import log_slopes, rise, run


class _Bins(NamedTuple):
    """Left ends, widths, lower ends and heights of the bins of values, and the slopes at their two ends."""

    x: Tensor
    w: Tensor
    z: Tensor
    h: Tensor
    d_low: Tensor
    d_high: Tensor


class Gaussianization(DataInitializedNode):
    """z = f(x), the same increasing f for every entry, so that all entries together are normally distributed.

    It is the first step of S. Chen and R. Gopinath, Gaussianization, 2000, with one distribution for all entries. Most pixels of a
    line drawing are background, whose noise is a tiny part of the range: an :class:`~flowclf.nodes.ActNorm` leaves it tiny, so that
    the smallest change moves the background by many of its standard deviations, and couplings, which only scale and shift, never
    make its distribution Gaussian. After this node the background has its share of the normal distribution.

    f is a rational-quadratic spline (Durkan et al., 2019, section 3.1) through quantiles of the first batch, linear outside; it is
    not trained, and the identity until :func:`~flowclf.nodes.initialize` sets it.

    Args:
        bins: number of bins, at equal distances in z.
        bound: largest |z| of a quantile; 3 standard deviations leave 1 of 370 values outside.
        max_slope: largest mean slope of a bin, where entries are all but constant.

    Example:
        >>> import torch
        >>> from flowclf.nodes import initialize
        >>> x = torch.randn(512, 1, 8, 8).exp()
        >>> node = Gaussianization([(1, 8, 8)])
        >>> initialize(node, x)
        >>> (z,), _ = node((x,))
        >>> bool(z.mean().abs() < 0.02), bool((z.std() - 1).abs() < 0.02), bool((z.abs() < 1).float().mean() - 0.683 < 0.01)
        (True, True, True)
    """

    exact_inverse = True
    knots: Tensor
    levels: Tensor
    slopes: Tensor

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        bins: PositiveInt = 64,
        bound: PositiveFloat = 3.0,
        max_slope: PositiveFloat = 300.0,
    ) -> None:
        super().__init__(dims_in, dims_c)
        self.bins, self.bound, self.max_slope = bins, bound, max_slope
        levels = torch.linspace(-bound, bound, bins + 1)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("knots", levels.clone())
        self.register_buffer("slopes", torch.ones(bins + 1))
        self.space: LogitSpace | None = None

    def initialize_from(self, x: Tensor) -> None:
        """Put the knots at the quantiles of all entries."""
        values = x if self.space is None else x[:, self._free]
        knots, slopes = quantile_spline(values.flatten(), self.levels, self.max_slope)
        self.knots.copy_(knots)
        self.slopes.copy_(slopes)

    @property
    def _free(self) -> Tensor:
        """Mask of the entries that are not logits, of the shape of an input."""
        assert self.space is not None
        return ~self.space.mask[0].expand(self.shape)

    def _bins(self, values: Tensor, ends: Tensor) -> _Bins:
        index = torch.bucketize(values.detach().contiguous(), ends[1:-1], right=True)
        tables = (self.knots, self.knots.diff(), self.levels, self.levels.diff(), self.slopes, self.slopes[1:])
        return _Bins(*(table.to(values)[index] for table in tables))

    def _log_det(self, slopes: Tensor) -> Tensor:
        return (slopes if self.space is None else self.space.without(slopes)).flatten(1).sum(1)

    def transform(self, x: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Evaluate the spline, or the line beyond its end."""
        self.initialize_if_asked(x)
        bins = self._bins(x, self.knots)
        s, at = bins.h / bins.w, (x - bins.x) / bins.w
        xi = at.clamp(0, 1)
        z = (
            bins.z
            + bins.h * rise(xi, s, bins.d_low, bins.d_high)
            + (at - xi) * bins.w * torch.where(at < 0, bins.d_low, bins.d_high)
        )
        slopes = log_slopes(xi, s, bins.d_low, bins.d_high) if log_det else None
        return z if self.space is None else self.space.restore(z, x), None if slopes is None else self._log_det(slopes)

    def invert(self, z: Tensor, conditions: Sequence[Tensor], log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Solve the bin's quadratic, or follow the line beyond the spline's end."""
        bins = self._bins(z, self.levels)
        s, at = bins.h / bins.w, (z - bins.z) / bins.h
        eta = at.clamp(0, 1)
        xi = run(eta, s, bins.d_low, bins.d_high)
        beyond = (at - eta) * bins.h / torch.where(at < 0, bins.d_low, bins.d_high)
        x = bins.x + bins.w * xi + beyond
        slopes = log_slopes(xi, s, bins.d_low, bins.d_high) if log_det else None
        return x if self.space is None else self.space.restore(x, z), None if slopes is None else -self._log_det(slopes)

    def extra_repr(self) -> str:
        """Arguments, for the repr."""
        return f"bins={self.bins}, bound={self.bound}, max_slope={self.max_slope}"


class LogitGaussianization(Gaussianization):
    """:class:`Gaussianization` of everything that is not a pixel from which the head will read a logit.

    Args:
        classes: K.
        bins, bound, max_slope: as in :class:`Gaussianization`.
        squeezes: number of squeezes by 2 between this node and the head, which has ``dct=False``.

    Raises:
        GraphError: if the head would have fewer channels than classes, or there is nothing but logits.

    Example:
        >>> node = LogitGaussianization([(1, 8, 8)], classes=3, squeezes=2)
        >>> node.preserves_logits
        LogitPlace(classes=3, dct=False, squeezes=2)
    """

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        classes: int,
        bins: PositiveInt = 64,
        bound: PositiveFloat = 3.0,
        max_slope: PositiveFloat = 300.0,
        squeezes: NonNegativeInt = 0,
    ) -> None:
        super().__init__(dims_in, dims_c, bins=bins, bound=bound, max_slope=max_slope)
        self.space = logit_space(dims_in, LogitPlace(classes, False, squeezes), "LogitGaussianization")
        self.preserves_logits = self.space.place
        if not bool(self._free.any()):
            raise GraphError(f"LogitGaussianization needs more than {classes} logits, found shape {self.shape}")


def quantile_spline(values: Tensor, levels: Tensor, max_slope: float) -> tuple[Tensor, Tensor]:
    """Knots and slopes of a spline that maps the values' quantiles to those of a normal distribution, at ``levels``.

    Args:
        values: (N,), at least one.
        levels: (K + 1,), increasing.
        max_slope: largest mean slope of a bin; where values are closer, knots are moved up.

    Returns:
        Knots and slopes, (K + 1,) each; the slope at a knot is the geometric mean of those of its two bins.

    Example:
        >>> knots, slopes = quantile_spline(torch.randn(10000), torch.linspace(-2, 2, 5), max_slope=100.0)
        >>> bool((knots - torch.linspace(-2, 2, 5)).abs().max() < 0.1), slopes.shape
        (True, torch.Size([5]))
    """
    ordered, levels = values.double().sort().values, levels.double()
    place = torch.special.ndtr(levels) * (len(ordered) - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=len(ordered) - 1)
    quantiles = torch.lerp(ordered[low], ordered[high], place - low)
    heights = levels.diff()
    least = torch.cat((levels.new_zeros(1), (heights / max_slope).cumsum(0)))
    knots = least + (quantiles - least).cummax(0).values
    each = heights / knots.diff()
    slopes = torch.cat((each[:1], (each[1:] * each[:-1]).sqrt(), each[-1:]))
    return knots, slopes
