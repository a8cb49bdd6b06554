"""Random changes to training images that keep their class, on whole batches of uint8 tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.component_schema.sections import from_code
from flowclf.errors import UsageError
from flowclf.host_memory import moved
from flowclf.settings import AugmentSettings

_BETWEEN_POINTS = 7
"""Approximate number of pixels between points at which a displacement is drawn."""


class Augmentation(AugmentSettings):
    """Random changes to training images; by default none.

    The order is rotation, zoom and elastic distortion in one interpolation, crop, shift, flip, noise; random numbers are drawn for
    each image. Pixels from outside the image are 0, except in a crop. Limits and defaults are declared in
    :class:`flowclf.settings.AugmentSettings`.

    Args:
        rotation: largest angle of rotation about the middle, either way, in degrees.
        zoom: largest change of size, either way, as a fraction of the size.
        elastic: standard deviation of random displacements along each axis, in pixels, at points about 7 pixels apart; between the
            points they are interpolated. About 1 suits handwriting (P. Simard et al., Best practices for convolutional neural
            networks applied to visual document analysis, 2003, section 2).
        unwarped: fraction of the images that rotation, zoom and elastic distortion leave unchanged. These soften images, and a flow
            that is trained on softened images alone gives others a low density.
        interpolation: ``bilinear``, or ``bicubic``, which softens less.
        shift: largest translation along each axis, in pixels; every integer from -shift to shift is equally likely. Below 1 it is a
            fraction of the smaller side, rounded down to whole pixels.
        crop: padding on each side, by reflection, before a random crop to the original size, in pixels or as a fraction, like
            ``shift``; 4 pixels are usual for CIFAR.
        flip: mirror left and right with probability 1/2.
        noise: largest standard deviation of Gaussian noise, as a fraction of the pixels' range; an image's standard deviation is
            uniform from 0 to it. Results are clipped to the range.

    Raises:
        UsageError: if an argument is unknown, or its value is not valid.

    Example:
        >>> images = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
        >>> Augmentation(shift=2)(images, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 1, 28, 28])
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**from_code(AugmentSettings, settings, "augment").model_dump())

    @classmethod
    def of(cls, value: AugmentSettings | Mapping[str, Any] | None) -> Augmentation:
        """An augmentation from its settings or a mapping of its arguments; None changes nothing. Errors are those of the class."""
        if isinstance(value, cls):
            return value
        return cls(**from_code(AugmentSettings, {} if value is None else value, "augment").model_dump())

    def __bool__(self) -> bool:
        """Whether images may change."""
        return bool(self._warps or self.shift or self.crop or self.flip or self.noise)

    @property
    def _warps(self) -> bool:
        return bool(self.rotation or self.zoom or self.elastic)

    def check(self, shape: Sequence[int]) -> None:
        """Check that data of this shape, (C, H, W) or (D,), can be augmented.

        Raises:
            UsageError: if the data are vectors that would change, or a shift or crop is not less than the smaller side.
        """
        if not self:
            return
        if len(shape) != 3:
            raise UsageError(f"augment: only images (C, H, W) can be augmented, found data of shape {tuple(shape)}")
        side = min(shape[1:])
        for name, pixels in (("shift", self.shift), ("crop", self.crop)):
            if pixels >= side:
                raise UsageError(f"augment: {name}: expected less than the smaller side, {side} pixels, found {pixels}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, C, H, W), uint8, on any device; the same tensor if nothing changes. Errors are those of :meth:`check`.

        The generator is on the CPU, so that a seed gives the same images on every device.
        """
        self.check(images.shape[1:])
        height, width = images.shape[-2:]
        crop, shift = (_pixels(value, min(height, width)) for value in (self.crop, self.shift))
        if self._warps:
            images = self._warped(images, generator)
        if crop:
            rows, columns = (moved(_reflected(size, crop), images.device) for size in (height, width))
            padded = images.index_select(2, rows).index_select(3, columns)
            images = _windows(padded, height, width, generator)
        if shift:
            padded = functional.pad(images, (shift,) * 4)
            images = _windows(padded, height, width, generator)
        if self.flip:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(moved(mirrored, images.device)[:, None, None, None], images.flip(-1), images)
        if self.noise:
            strength = 255 * self.noise * torch.rand(len(images), 1, 1, 1, generator=generator)
            noise = strength * torch.randn(images.shape, generator=generator)
            images = (images + moved(noise, images.device)).round().clamp(0, 255).to(torch.uint8)
        return images

    def _warped(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Rotate, zoom and distort the images that are not left unchanged."""
        angle, share = 2 * torch.rand(2, len(images), generator=generator) - 1
        angle, share = angle * math.radians(self.rotation), share * self.zoom
        kept = torch.rand(len(images), generator=generator) < self.unwarped if self.unwarped else torch.zeros(len(images)).bool()
        angle, share = angle.masked_fill(kept, 0.0), share.masked_fill(kept, 0.0)
        height, width = images.shape[-2:]
        cosine, sine = angle.cos() / (1 + share), angle.sin() / (1 + share)
        nothing = torch.zeros_like(angle)
        # Coordinates run from -1 to 1 along both sides, whatever their lengths.
        first = torch.stack((cosine, -sine * height / width, nothing), dim=1)
        second = torch.stack((sine * width / height, cosine, nothing), dim=1)
        maps = moved(torch.stack((first, second), dim=1), images.device)
        grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
        if self.elastic:
            points = [max(2, round(side / _BETWEEN_POINTS) + 1) for side in (height, width)]
            drawn = self.elastic * torch.randn(len(images), 2, *points, generator=generator)
            drawn = moved(drawn.masked_fill(kept[:, None, None, None], 0.0), images.device)
            pixels = functional.interpolate(drawn, (height, width), mode="bicubic", align_corners=True)
            grid = grid + pixels.permute(0, 2, 3, 1) * moved(torch.tensor([2 / width, 2 / height]), images.device)
        warped = functional.grid_sample(images.float(), grid, mode=self.interpolation, align_corners=False)
        return warped.round().clamp(0, 255).to(torch.uint8)


def _pixels(value: float, side: int) -> int:
    """Pixels, from pixels or a fraction of the side."""
    return int(value * side) if isinstance(value, float) else value


def _reflected(size: int, padding: int) -> Tensor:
    """Indices 0..size-1 and ``padding`` more on each side, by reflection that does not repeat the border."""
    indices = torch.arange(-padding, size + padding).abs()
    return (size - 1) - ((size - 1) - indices).abs()


def _windows(padded: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A random window of each padded image, by one gather over flat pixels, which is three times as fast as three index tensors."""
    (batch, channels, padded_height, padded_width), device = padded.shape, padded.device
    limits = padded_height - height + 1, padded_width - width + 1
    offsets = moved(torch.stack([torch.randint(limit, (batch,), generator=generator) for limit in limits]), device)
    start = offsets[0] * padded_width + offsets[1]
    window = torch.arange(height, device=device)[:, None] * padded_width + torch.arange(width, device=device)
    index = (start[:, None] + window.flatten())[:, None].expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(batch, channels, height, width)
