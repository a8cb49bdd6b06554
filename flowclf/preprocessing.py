"""Preprocessing: stored images to network inputs, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowclf.errors import UsageError
from flowclf.fixed_point import round_to_grid
from flowclf.host_memory import moved
from flowclf.modes import is_traced

_LARGEST = 16.0
"""Non-negative floating-point images with larger values than this are taken for images in 0..255."""


class Preprocessing(nn.Module):
    """Invertible map from images in [0, 1] to network inputs in [-1, 1], and the dequantisation of stored images.

    For training, a pixel value v in 0..255 is reduced to the level q = floor(v / 2^(8 - bits)), and the network's input is
    x = 2 (q + u) / 2^bits - 1 with dequantisation noise u uniform in [0, 1). Padding is level 0 with the same noise. An image
    without noise is mapped by x = (2 image - 1) (1 - 2^-bits), which takes black and white to the centres of the first and the
    last level, and at 8 bits every v / 255 to the centre of its level.

    With ``fixed_point`` all values are on the grid of :mod:`flowclf.fixed_point`, and u takes N = 2^(16 - bits) values,
    (k + 1/2) / N: the midpoint rule for the integral over continuous u, so that code lengths have the same meaning.

    Continuous data are vectors (D,) and signals (C, L), which become vectors (C * L,). They pass unchanged, or are standardised:
    x = (v - mean) / std, for each entry of a vector or each channel of a signal. The inverse gives values v in their own units.

    Args:
        image_shape: (C, H, W) of the images before padding, (D,) of vectors, or (C, L) of signals.
        bits: depth of the dequantisation, 1 to 8; None for continuous data.
        pad: pixels added on each of the four sides; or four numbers: left, top, right, bottom.
        fixed_point: round to the grid.
        mean: D or C values that are subtracted from continuous data; None for none.
        std: D or C positive values by which they are then divided; given with ``mean``. :func:`standardization` computes both.

    Raises:
        UsageError: if bits is outside 1 to 8, pad is negative or given without bits, or either is given for continuous data; or
            mean and std are not given together, are given for images, are of the wrong number, or are not finite and positive.

    Example:
        >>> preprocessing = Preprocessing((1, 28, 28), bits=4, pad=2)
        >>> x = preprocessing(torch.rand(5, 1, 28, 28))
        >>> x.shape, preprocessing.inverse(x).shape
        (torch.Size([5, 1, 32, 32]), torch.Size([5, 1, 28, 28]))
    """

    _mean: Tensor | None
    _std: Tensor | None

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        bits: int | None = 8,
        pad: int | Sequence[int] = 0,
        fixed_point: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = tuple(int(size) for size in image_shape)
        if bits is not None and not 1 <= bits <= 8:
            raise UsageError(f"preprocessing: bits must be 1 to 8 or None, found {bits}")
        sides = (pad,) * 4 if isinstance(pad, int) else tuple(pad)
        if len(sides) != 4 or not all(isinstance(side, int) and side >= 0 for side in sides):
            raise UsageError(f"preprocessing: pad must be 0 or more pixels, or four such numbers, found {pad}")
        if len(self.image_shape) != 3 and (bits is not None or any(sides)):
            raise UsageError(f"preprocessing: bits and pad need images (C, H, W), found data of shape {self.image_shape}")
        if bits is not None and mean is not None:
            raise UsageError("preprocessing: mean and std are for continuous data, whose bits are None; images become [-1, 1]")
        if bits is None and any(sides):
            raise UsageError(f"preprocessing: padding consists of dequantisation noise and needs bits; found pad {pad}, bits None")
        self.bits = bits
        self.pad: int | tuple[int, ...] = sides if len(set(sides)) > 1 else sides[0]
        self._left, self._top, self._right, self._bottom = sides
        self.fixed_point = fixed_point
        self.mean, self.std = _checked(mean, std, self.image_shape)
        self._log2_std = sum(map(math.log2, self.std)) / len(self.std) if self.std else 0.0
        for name, values in (("_mean", self.mean), ("_std", self.std)):
            # They are part of the description of a model, not of its weights.
            tensor = None if values is None else torch.tensor(values).view(-1, *[1] * (len(self.image_shape) - 1))
            self.register_buffer(name, tensor, persistent=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a network input, without the batch dimension."""
        if len(self.image_shape) == 2:
            return (math.prod(self.image_shape),)
        channels, *size = self.image_shape
        added = (self._top + self._bottom, self._left + self._right)
        return (channels, *(pixels + more for pixels, more in zip(size, added, strict=False)))

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON."""
        pad = self.pad if isinstance(self.pad, int) else list(self.pad)
        own = {"image_shape": list(self.image_shape), "bits": self.bits, "pad": pad, "fixed_point": self.fixed_point}
        if self.mean is None or self.std is None:
            return own
        return {**own, "mean": list(self.mean), "std": list(self.std)}

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1], or continuous data, to network inputs, without noise.

        Raises:
            UsageError: if the images have the wrong shape or an integer type, or values of an image in 0..255.
        """
        self._check(images)
        if not images.is_floating_point():
            raise UsageError(f"expected images as floating point in [0, 1], found {images.dtype}; divide 8-bit images by 255")
        if self.bits is None:
            return self._continuous(images)
        # Metamers may leave [0, 1] by any amount, but then on both sides.
        if images.numel() and not is_traced():
            low, high = images.detach().aminmax()
            if low >= 0 and high > _LARGEST:
                raise UsageError(f"expected images in [0, 1], found values up to {float(high):g}; divide 8-bit images by 255")
        x = (2 * images - 1) * (1 - 2.0**-self.bits)
        if self.fixed_point:
            x = round_to_grid(x)
        return functional.pad(x, self._sides, value=2.0**-self.bits - 1) if self.pad else x

    def inverse(self, x: Tensor) -> Tensor:
        """Map network inputs to images without the padding; x in [-1, 1] to values up to half a level beyond [0, 1].

        Continuous data get their own shape and units back.
        """
        if self.bits is None:
            x = x.reshape(-1, *self.image_shape) if len(self.image_shape) == 2 else x
            return x if self._mean is None or self._std is None else x * self._std.to(x) + self._mean.to(x)
        x = self._without_padding(x)
        return (x / (1 - 2.0**-self.bits) + 1) / 2

    def outside(self, x: Tensor) -> Tensor:
        """Mask (B, C, H, W) of the pixels outside the range of images with noise, |x| > 1."""
        return self._without_padding(x).abs() > 1

    def dequantize(
        self, data: Tensor, generator: torch.Generator | None = None, *, whole: int | None = None, share: slice = slice(None)
    ) -> Tensor:
        """Map stored data to network inputs with dequantisation noise, for training and likelihoods.

        Args:
            data: pixel values (B, C, H, W), uint8, 0..255; or continuous data, which get no noise.
            generator: random number generator; the noise is drawn on its device.
            whole: size of the batch of which the data are a part; the noise is drawn for all of it. By default all is given.
            share: which part of that batch the data are.

        Raises:
            UsageError: if the data have the wrong shape, or pixel values are not uint8, or are uint8 and there are no bits.
        """
        self._check(data)
        if self.bits is None:
            if data.dtype == torch.uint8 and len(self.image_shape) == 3:
                raise UsageError(
                    "expected bits, 1 to 8, for pixel values as uint8; without them, images in [0, 1] would be other inputs"
                )
            return self._continuous(data)
        if data.dtype != torch.uint8:
            raise UsageError(f"expected pixel values as uint8, found {data.dtype}")
        levels = (data >> (8 - self.bits)).to(torch.get_default_dtype())
        shape = (data.shape[0] if whole is None else whole, *self.input_shape)
        device = data.device if generator is None else generator.device
        noise = moved(torch.rand(shape, generator=generator, device=device)[share], data.device)
        if self.fixed_point:
            parts = 2.0 ** (16 - self.bits)
            noise = (noise * parts).floor().add(0.5).div(parts)
        if self.pad:
            levels = functional.pad(levels, self._sides)
        return (levels + noise) * 2.0 ** (1 - self.bits) - 1

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        """Compute the code length of the data, (B,), bits per dimension, from log p(x) of the network's input in nats.

        The density is that of the level q + u at the depth ``bits``: -log2 p(x) - D log2(dx/dq), divided by the D_data dimensions
        of the image, without padding. For continuous data it is the density of the values v: -log2 p(x) + sum log2(std).
        """
        dimensions = math.prod(self.image_shape)
        bits = -log_prob / (dimensions * math.log(2))
        if self.bits is None:
            return bits + self._log2_std
        return bits + (self.bits - 1) * math.prod(self.input_shape) / dimensions

    def _continuous(self, data: Tensor) -> Tensor:
        if self._mean is not None and self._std is not None:
            data = (data - self._mean.to(data)) / self._std.to(data)
        data = data.flatten(1) if len(self.image_shape) == 2 else data
        return round_to_grid(data) if self.fixed_point else data

    @property
    def _sides(self) -> tuple[int, ...]:
        """The padding in torch's order."""
        return self._left, self._right, self._top, self._bottom

    def _without_padding(self, x: Tensor) -> Tensor:
        if not self.pad:
            return x
        height, width = self.image_shape[1:]
        return x[..., self._top : self._top + height, self._left : self._left + width]

    def _check(self, data: Tensor) -> None:
        if not isinstance(data, Tensor):
            raise UsageError(f"expected a batch as a tensor, found a {type(data).__name__}; torch.as_tensor makes one of an array")
        if tuple(data.shape[1:]) != self.image_shape:
            expected = ", ".join(str(size) for size in self.image_shape)
            raise UsageError(f"expected a batch of shape (B, {expected}), found {tuple(data.shape)}")

    def extra_repr(self) -> str:
        """Constructor arguments for the repr."""
        grid = ", fixed_point=True" if self.fixed_point else ""
        scaled = "" if self.mean is None else ", standardised"
        return f"image_shape={self.image_shape}, bits={self.bits}, pad={self.pad}{grid}{scaled}"


def standardization(data: Tensor) -> dict[str, list[float]]:
    """The ``mean`` and ``std`` of continuous data, as arguments of :class:`Preprocessing`.

    Args:
        data: the training part alone, vectors (N, D) or signals (N, C, L), floating point.

    Returns:
        ``mean`` and ``std``, of each entry of a vector or each channel of a signal. An entry that is constant, up to a millionth of
        its magnitude, gets that magnitude as its std (1 if it is 0), so that other data do not become arbitrarily large.

    Raises:
        UsageError: if the data are images, or there are none.

    Example:
        >>> standardization(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        {'mean': [2.0, 5.0], 'std': [1.0, 5.0]}
    """
    if data.dim() not in (2, 3) or not data.is_floating_point() or not data.numel():
        raise UsageError(
            f"standardize: expected floating-point vectors (N, D) or signals (N, C, L), found {data.dtype} of shape "
            f"{tuple(data.shape)}; images become [-1, 1] without it"
        )
    columns = data.double().transpose(0, 1).flatten(1)
    std, mean = torch.std_mean(columns, dim=1, correction=0)
    magnitude = columns.abs().amax(1)
    constant = std <= 1e-6 * magnitude
    std = torch.where(constant, torch.where(magnitude > 0, magnitude, 1.0), std)
    return {"mean": mean.tolist(), "std": std.tolist()}


def _checked(
    mean: Sequence[float] | None, std: Sequence[float] | None, shape: Sequence[int]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if mean is None and std is None:
        return None, None
    if mean is None or std is None or len(shape) == 3:
        raise UsageError("preprocessing: expected mean and std together, for vectors (D,) or signals (C, L)")
    means, stds = tuple(map(float, mean)), tuple(map(float, std))
    valid = all(map(math.isfinite, (*means, *stds))) and min(stds, default=0.0) > 0
    if not valid or len(means) != shape[0] or len(stds) != shape[0]:
        raise UsageError(
            f"preprocessing: expected mean and std of {shape[0]} finite values each, std positive; found {len(means)} and "
            f"{len(stds)} values from {min((*means, *stds), default=0.0):g} to {max((*means, *stds), default=0.0):g}"
        )
    return means, stds
