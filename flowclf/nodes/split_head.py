"""The last node of every classifier: logits on one side, nuisances on the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from flowclf.argument_types import PositiveFloat
from flowclf.errors import GraphError
from flowclf.nodes.base import FlowNode, Shape, Shapes
from flowclf.nodes.dct import dct2d, inverse_dct2d


class SplitHead(FlowNode):
    """Last feature map and factored-out parts in, logits (K,) and nuisances (D-K,) out.

    The entries of the last map are ordered by position (u, v), first by u + v, then by u, and then by channel. With ``dct=True``
    positions are frequencies of an orthonormal DCT-II, so for K <= C the first K entries are the means of the first K channels
    times sqrt(H W) (paper, appendix B.3). The first K entries, times ``logit_scale``, are the logits; the other entries and then
    the factored-out parts, flattened, are the nuisances. In eval mode the DCT is computed in float64.

    Args:
        dims_in: the shape of the last feature map (C, H, W) or vector (D,), then those of the parts, if any.
        classes: K, at least 2.
        dct: read the logits from the lowest frequencies rather than from the first pixels; vectors ignore it.
        logit_scale: factor on the logits inside the bijection; it adds K log(logit_scale) to the log-determinant.
        logit_mean: m of the prior N(m e_y, m I) that a classifier with this head gets; by default logit_scale^2, so that what the
            head scales has unit variance.

    Raises:
        GraphError: if there are fewer than two classes, more classes than dimensions of the last map, or conditions.

    Example:
        >>> head = SplitHead([(16, 7, 7), (8, 14, 14)], classes=10)
        >>> head.output_dims(head.dims_in)
        [(10,), (2342,)]
    """

    exact_inverse = True
    is_head = True

    def __init__(
        self,
        dims_in: Shapes,
        dims_c: Shapes | None = None,
        *,
        classes: int,
        dct: bool = True,
        logit_scale: PositiveFloat = 1.0,
        logit_mean: PositiveFloat | None = None,
    ) -> None:
        shapes: list[Shape] = [tuple(int(size) for size in shape) for shape in dims_in]
        if dims_c:
            raise GraphError(f"SplitHead takes no conditions, found {list(dims_c)}")
        if not shapes or len(shapes[0]) not in (1, 3):
            raise GraphError(f"SplitHead takes a vector (D,) or a feature map (C, H, W) first, found {shapes}")
        if not isinstance(classes, int) or classes < 2:
            raise GraphError(f"SplitHead needs at least 2 classes, found {classes!r}")
        total = sum(map(math.prod, shapes))
        if classes > math.prod(shapes[0]) or classes >= total:
            raise GraphError(f"SplitHead on shapes {shapes}: {classes} classes need more dimensions than {math.prod(shapes[0])}")
        super().__init__(shapes)
        self.classes = classes
        self.dct = dct and len(shapes[0]) == 3
        self.logit_scale = logit_scale
        self.logit_mean = logit_scale**2 if logit_mean is None else logit_mean
        self.dimensions = total
        if len(shapes[0]) == 3:
            _, height, width = shapes[0]
            places = sorted(itertools.product(range(height), range(width)), key=lambda place: (sum(place), place[0]))
            order = torch.tensor([u * width + v for u, v in places])
            self.register_buffer("order", order, persistent=False)
            self.register_buffer("rank", order.argsort(), persistent=False)

    @property
    def keeps_grid(self) -> bool:  # type: ignore[override]
        """Whether numbers on the grid stay on it: no DCT, and a scale that is a power of 2, by which float32 multiplies exactly."""
        mantissa, exponent = math.frexp(self.logit_scale)
        return not self.dct and mantissa == 0.5 and abs(exponent) <= 64

    def _flatten(self, last: Tensor) -> Tensor:
        if last.dim() == 2:
            return last
        coefficients = self._precisely(dct2d, last) if self.dct else last
        return coefficients.permute(0, 2, 3, 1).flatten(1, 2)[:, self.order].flatten(1)

    def _unflatten(self, flat: Tensor) -> Tensor:
        shape = self.dims_in[0]
        if len(shape) == 1:
            return flat
        channels, height, width = shape
        # Channels last, in which couplings compute fastest; the nodes before keep this layout in the inverse.
        coefficients = flat.reshape(-1, height * width, channels)[:, self.rank]
        coefficients = coefficients.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return _channels_last(self._precisely(inverse_dct2d, coefficients)) if self.dct else coefficients

    def _precisely(self, transform: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
        """In float64 in eval mode: the inverse of the nodes before would enlarge rounding errors."""
        return transform(maps) if self.training else transform(maps.double()).to(maps.dtype)

    def _parts(self, flat: Tensor) -> list[Tensor]:
        sizes = [math.prod(shape) for shape in self.dims_in[1:]]
        parts = zip(torch.split(flat, sizes, dim=1), self.dims_in[1:], strict=True)
        return [_channels_last(part.reshape(-1, *shape)) for part, shape in parts]

    def forward(
        self, x_or_z: Iterable[Tensor], c: Iterable[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Maps to (logits, nuisances), or with ``rev`` back."""
        values = tuple(x_or_z)
        log_scale = self.classes * math.log(self.logit_scale)
        log_det = values[0].new_full(values[0].shape[:1], -log_scale if rev else log_scale)
        k, in_last = self.classes, math.prod(self.dims_in[0])
        if rev:
            logits, nuisance = values
            last = self._unflatten(torch.cat((logits / self.logit_scale, nuisance[:, : in_last - k]), dim=1))
            return (last, *self._parts(nuisance[:, in_last - k :])), log_det
        flat = self._flatten(values[0])
        nuisance = torch.cat((flat[:, k:], *(part.flatten(1) for part in values[1:])), dim=1)
        return (flat[:, :k] * self.logit_scale, nuisance), log_det

    def nuisance_maps(self, nuisance: Tensor) -> list[Tensor]:
        """Nuisances (B, D-K) as feature maps: the last map, with 0 for the logits' coefficients, then the factored-out parts."""
        in_last = math.prod(self.dims_in[0])
        zeros = nuisance.new_zeros(nuisance.shape[0], self.classes)
        last = self._unflatten(torch.cat((zeros, nuisance[:, : in_last - self.classes]), dim=1))
        return [last, *self._parts(nuisance[:, in_last - self.classes :])]

    def output_dims(self, input_dims: Shapes) -> list[Shape]:
        """FrEIA's shape inference."""
        return [(self.classes,), (self.dimensions - self.classes,)]

    def extra_repr(self) -> str:
        """Arguments, for the repr."""
        return f"classes={self.classes}, dct={self.dct}, logit_scale={self.logit_scale}"


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
