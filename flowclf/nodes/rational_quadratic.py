"""The rational-quadratic spline as a transformer, with an inverse that loses no digits.

nflows has the same map, but its inverse cancels digits (error 2e-9 in float64) and fails if rounding makes a discriminant negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowclf.argument_types import PositiveFloat, PositiveInt, ProperFraction
from flowclf.nodes.transformers import Transformer


class RationalQuadratic(Transformer):
    r"""A monotonic spline of rational quadratics on [-B, B], and the identity outside (Durkan et al., 2019, section 3.1).

    The source is Neural Spline Flows, by C. Durkan, A. Bekasov, I. Murray and G. Papamakarios, NeurIPS 2019. K bins of widths w
    and heights h, which add up to 2 B, have slopes d at their K + 1 ends; those at -B and B are 1. With s = h / w and xi in [0, 1]
    the place of x in its bin, the output is (eq. 4)

    .. math:: z_k + h \frac{s \xi^2 + d_k \xi (1 - \xi)}{s + (d_{k+1} + d_k - 2 s) \xi (1 - \xi)}.

    Each entry has K parameters for widths, K for heights and K - 1 for slopes; where all are 0 the spline is the identity. Bounds
    on bins and slopes keep the inverse exact to 1e-9 in float64. The arithmetic is in float32 at least.

    Args:
        bins: K.
        bound: B.
        min_bin: smallest width and height of a bin, as a fraction of their mean, 2 B / K.
        max_log_slope: largest absolute logarithm of the slope at an end of a bin, nats.

    Example:
        >>> spline = RationalQuadratic(bins=4, bound=2.0)
        >>> x = torch.tensor([[-3.0, 0.5]], dtype=torch.float64)
        >>> parameters = torch.randn(1, 2 * spline.parameters_per_entry, dtype=torch.float64)
        >>> z, log_det = spline(x, parameters, True)
        >>> again, _ = spline.inverse(z, parameters, False)
        >>> bool(z[0, 0] == -3), bool((again - x).abs().max() < 1e-12)
        (True, True)
    """

    def __init__(
        self,
        *,
        bins: PositiveInt = 8,
        bound: PositiveFloat = 3.0,
        min_bin: ProperFraction = 0.1,
        max_log_slope: PositiveFloat = 3.0,
    ) -> None:
        super().__init__()
        self.bins = bins
        self.bound = bound
        self.min_bin = min_bin
        self.max_log_slope = max_log_slope
        self.parameters_per_entry = 3 * bins - 1

    def extra_repr(self) -> str:
        """Arguments, for the repr."""
        return f"bins={self.bins}, bound={self.bound}, min_bin={self.min_bin}, max_log_slope={self.max_log_slope}"

    def forward(self, x: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Evaluate the spline (eq. 4)."""
        inside, point, (x_low, w, z_low, h, d_low, d_high) = self._bin(x, parameters, inverse=False)
        xi = (point - x_low) / w
        z = torch.where(inside, z_low + h * rise(xi, h / w, d_low, d_high), x)
        return z.to(x.dtype), _log_det(inside, xi, h / w, d_low, d_high) if log_det else None

    def inverse(self, z: Tensor, parameters: Tensor, log_det: bool) -> tuple[Tensor, Tensor | None]:
        """Solve for x (eq. 6 to 8, written without differences that cancel)."""
        inside, point, (x_low, w, z_low, h, d_low, d_high) = self._bin(z, parameters, inverse=True)
        s, eta = h / w, (point - z_low) / h
        xi = run(eta, s, d_low, d_high)
        x = torch.where(inside, x_low + w * xi, z)
        return x.to(z.dtype), -_log_det(inside, xi, s, d_low, d_high) if log_det else None

    def _bin(self, values: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Whether values lie inside, the clamped values, and left end, width, lower end, height and slopes of their bins."""
        dtype = torch.promote_types(torch.promote_types(values.dtype, parameters.dtype), torch.float32)
        entries = parameters.shape[1] // self.parameters_per_entry
        each = parameters.to(dtype).view(parameters.shape[0], self.parameters_per_entry, entries, *parameters.shape[2:])
        widths, heights, raw_slopes = torch.split(each, [self.bins, self.bins, self.bins - 1], dim=1)
        ends, levels = self._ends(widths), self._ends(heights)
        slopes = _pad(self.max_log_slope * torch.tanh(raw_slopes / self.max_log_slope), 0.0, 0.0).exp()
        inside = values.abs() <= self.bound
        point = values.to(dtype).clamp(-self.bound, self.bound)
        index = (point.unsqueeze(1) >= (levels if inverse else ends)[:, 1:-1]).sum(1, keepdim=True)
        widths, heights = (values[:, 1:] - values[:, :-1] for values in (ends, levels))
        tables = (ends, widths, levels, heights, slopes, slopes[:, 1:])
        return inside, point, [table.gather(1, index).squeeze(1) for table in tables]

    def _ends(self, raw: Tensor) -> Tensor:
        """Ends of the bins, (B, K + 1, C, ...), from -bound to bound."""
        sizes = self.min_bin / self.bins + (1 - self.min_bin) * raw.softmax(1)
        inner = self.bound * (2 * sizes.cumsum(1)[:, :-1] - 1)
        return _pad(inner, -self.bound, self.bound)


def _pad(values: Tensor, first: float, last: float) -> Tensor:
    """Values (B, K - 1, C, ...) between two constants, (B, K + 1, C, ...)."""
    shape = (values.shape[0], 1, *values.shape[2:])
    return torch.cat((values.new_full(shape, first), values, values.new_full(shape, last)), dim=1)


def rise(xi: Tensor, s: Tensor, d_low: Tensor, d_high: Tensor) -> Tensor:
    """Height in a bin, from 0 to 1, at the place xi in it; mean slope s, slopes at its ends (eq. 4)."""
    return (s * xi.square() + d_low * xi * (1 - xi)) / _denominator(xi, s, d_low, d_high)


def run(eta: Tensor, s: Tensor, d_low: Tensor, d_high: Tensor) -> Tensor:
    """Place xi in a bin, from 0 to 1, with the height eta: the inverse of :func:`rise`."""
    # In the paper's terms q = b - 2 s eta, and the discriminant b^2 - 4 a c is this sum of squares. The root for xi is stable
    # if q > 0; if q < 0, the root for 1 - xi is, which has the same form from the bin's other end.
    q = d_low * (1 - eta) - d_high * eta
    root = (q.square() + 4 * s.square() * eta * (1 - eta)).sqrt()
    near = 2 * s * torch.where(q > 0, eta, 1 - eta)
    share = near / (q.abs() + near + root)
    return torch.where(q > 0, share, 1 - share)


def log_slopes(xi: Tensor, s: Tensor, d_low: Tensor, d_high: Tensor) -> Tensor:
    """Logarithm of the slope at xi (eq. 5)."""
    rest = 1 - xi
    numerator = d_high * xi.square() + 2 * s * xi * rest + d_low * rest.square()
    return ((s / _denominator(xi, s, d_low, d_high)).square() * numerator).log()


def _denominator(xi: Tensor, s: Tensor, d_low: Tensor, d_high: Tensor) -> Tensor:
    """s + (d_high + d_low - 2 s) xi (1 - xi), as a sum of positive terms."""
    rest = 1 - xi
    return s * (xi.square() + rest.square()) + (d_low + d_high) * xi * rest


def _log_det(inside: Tensor, xi: Tensor, s: Tensor, d_low: Tensor, d_high: Tensor) -> Tensor:
    """Sum of the logarithms of the slopes."""
    return torch.where(inside, log_slopes(xi, s, d_low, d_high), 0.0).flatten(1).sum(1)
