"""Random changes to training images that keep their class, on whole batches of uint8 tensors.

All random numbers are drawn for a whole batch, also where only a share of it is augmented: an image's change depends on the batch's
generator and the image's place in the batch, not on how many processes share the batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from flowclf.component_schema.sections import from_code
from flowclf.data.torchvision_import import transforms
from flowclf.errors import UsageError
from flowclf.host_memory import moved
from flowclf.settings import AugmentSettings

_BETWEEN_POINTS = 7
"""Approximate number of pixels between points at which a displacement is drawn."""


class Augmentation(AugmentSettings):
    """Random changes to training images; by default none.

    The order is resized crop; rotation, zoom and elastic distortion in one interpolation; crop, shift, flip, colour, noise. Random
    numbers are drawn for each image. Pixels from outside the image are 0, except in a crop. Limits and defaults are declared in
    :class:`flowclf.settings.AugmentSettings`. Resized crop and colour are those of ``torchvision.transforms.v2``.

    Args:
        resized_crop: least area of a random crop that is scaled to the size of the images, as a fraction of the image; its ratio of
            width to height is 3/4 to 4/3. None for no such crop. The crop is of the image as stored; if the data set is decoded as
            it is used (see :func:`flowclf.data.image_folder`), it is of the file, in the file's own resolution.
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
        color: mapping of ``brightness``, ``contrast``, ``saturation`` (largest change c of a factor that is uniform in
            [1 - c, 1 + c]) and ``hue`` (largest shift, in turns, at most 1/2).
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
        return bool(self.resized_crop or self._warps or self.shift or self.crop or self.flip or self._colors or self.noise)

    @property
    def _warps(self) -> bool:
        return bool(self.rotation or self.zoom or self.elastic)

    @property
    def _colors(self) -> bool:
        return any(self.color.model_dump().values())

    def check(self, shape: Sequence[int]) -> None:
        """Check that data of this shape, (C, H, W) or (D,), can be augmented.

        Raises:
            UsageError: if the data are vectors that would change, a shift or crop is not less than the smaller side, or the
                saturation or hue of grey images would change.
        """
        if not self:
            return
        if len(shape) != 3:
            raise UsageError(f"augment: only images (C, H, W) can be augmented, found data of shape {tuple(shape)}")
        side = min(shape[1:])
        for name, pixels in (("shift", self.shift), ("crop", self.crop)):
            if pixels >= side:
                raise UsageError(f"augment: {name}: expected less than the smaller side, {side} pixels, found {pixels}")
        for name in ("saturation", "hue"):
            if shape[0] != 3 and (found := getattr(self.color, name)):
                raise UsageError(f"augment: color.{name}: expected 0 for images that are not RGB, found {found}")
        if self.resized_crop or self._colors:
            # Before any process is started, so that all of them have it.
            transforms()

    def __call__(
        self, images: Tensor, generator: torch.Generator, *, whole: int | None = None, share: slice = slice(None)
    ) -> Tensor:
        """Augment images (B, C, H, W), uint8, on any device; the same tensor if nothing changes. Errors are those of :meth:`check`.

        The generator is on the CPU, so that a seed gives the same images on every device.

        Args:
            images: all images of a batch, or a share of them.
            generator: the batch's source of random numbers.
            whole: number of images in the batch, if only a share is given.
            share: the places of the share in the batch.

        Example:
            >>> images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
            >>> whole = Augmentation(shift=2)(images, torch.Generator().manual_seed(0))
            >>> odd = Augmentation(shift=2)(images[1::2], torch.Generator().manual_seed(0), whole=4, share=slice(1, None, 2))
            >>> torch.equal(odd, whole[1::2])
            True
        """
        self.check(images.shape[1:])
        draws = _Draws(generator, len(images) if whole is None else whole, share)
        if self.resized_crop:
            size = tuple(images.shape[-2:])
            crops = zip(images, self.crop_seeds(draws.whole, generator)[share], strict=True)
            images = torch.stack([self.cropped(image, size, seed) for image, seed in crops])
        return self._changed(images, draws)

    def crop_seeds(self, whole: int, generator: torch.Generator) -> list[int]:
        """Draw the seeds of the resized crops of a batch of this many images."""
        return _seeds(whole, generator)

    def cropped(self, image: Tensor, size: Sequence[int], seed: int) -> Tensor:
        """The resized crop of an image (C, H, W) of any size, scaled to a size (height, width)."""
        return _seeded(_resized_crop(tuple(size), self.resized_crop or 1.0, self.interpolation), image, seed)

    def after_crop(self, images: Tensor, generator: torch.Generator, *, whole: int, share: slice) -> Tensor:
        """Augment as :meth:`__call__` does after the resized crop."""
        self.check(images.shape[1:])
        return self._changed(images, _Draws(generator, whole, share))

    def _changed(self, images: Tensor, draws: _Draws) -> Tensor:
        """All changes after the resized crop."""
        height, width = images.shape[-2:]
        crop, shift = (_pixels(value, min(height, width)) for value in (self.crop, self.shift))
        if self._warps:
            images = self._warped(images, draws)
        if crop:
            rows, columns = (moved(_reflected(size, crop), images.device) for size in (height, width))
            padded = images.index_select(2, rows).index_select(3, columns)
            images = _windows(padded, height, width, draws)
        if shift:
            padded = functional.pad(images, (shift,) * 4)
            images = _windows(padded, height, width, draws)
        if self.flip:
            mirrored = draws.uniform() < 0.5
            images = torch.where(moved(mirrored, images.device)[:, None, None, None], images.flip(-1), images)
        if self._colors:
            jitter = transforms().ColorJitter(**self.color.model_dump())
            seeds = _seeds(draws.whole, draws.generator)[draws.share]
            images = torch.stack([_seeded(jitter, image, seed) for image, seed in zip(images, seeds, strict=True)])
        if self.noise:
            strength = 255 * self.noise * draws.uniform(1, 1, 1)
            noise = strength * draws.normal(*images.shape[1:])
            images = (images + moved(noise, images.device)).round().clamp(0, 255).to(torch.uint8)
        return images

    def _warped(self, images: Tensor, draws: _Draws) -> Tensor:
        """Rotate, zoom and distort the images that are not left unchanged."""
        angle, share = 2 * torch.rand(2, draws.whole, generator=draws.generator)[:, draws.share] - 1
        angle, share = angle * math.radians(self.rotation), share * self.zoom
        kept = draws.uniform() < self.unwarped if self.unwarped else torch.zeros(len(images)).bool()
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
            drawn = self.elastic * draws.normal(2, *points)
            drawn = moved(drawn.masked_fill(kept[:, None, None, None], 0.0), images.device)
            pixels = functional.interpolate(drawn, (height, width), mode="bicubic", align_corners=True)
            grid = grid + pixels.permute(0, 2, 3, 1) * moved(torch.tensor([2 / width, 2 / height]), images.device)
        warped = functional.grid_sample(images.float(), grid, mode=self.interpolation, align_corners=False)
        return warped.round().clamp(0, 255).to(torch.uint8)


class _Draws(NamedTuple):
    """Random numbers for each image of a batch, of which those of a share are kept."""

    generator: torch.Generator
    whole: int
    share: slice

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.whole, *shape, generator=self.generator)[self.share]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.whole, *shape, generator=self.generator)[self.share]

    def below(self, limit: int) -> Tensor:
        return torch.randint(limit, (self.whole,), generator=self.generator)[self.share]


@functools.cache
def _resized_crop(size: tuple[int, ...], least: float, interpolation: str) -> Callable[[Tensor], Tensor]:
    """The transform, which takes as long to make as to use."""
    mode = transforms().InterpolationMode[interpolation.upper()]
    return transforms().RandomResizedCrop(size, scale=(least, 1.0), interpolation=mode)  # type: ignore[no-any-return]


def _seeds(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(2**62, (count,), generator=generator).tolist()


def _seeded(transform: Callable[[Tensor], Tensor], image: Tensor, seed: int) -> Tensor:
    """A transform of torchvision, which draws from the global generator, as a function of a seed."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU, which fork_rng leaves as it is here.
        torch.default_generator.manual_seed(seed)
        return transform(image)


def _pixels(value: float, side: int) -> int:
    """Pixels, from pixels or a fraction of the side."""
    return int(value * side) if isinstance(value, float) else value


def _reflected(size: int, padding: int) -> Tensor:
    """Indices 0..size-1 and ``padding`` more on each side, by reflection that does not repeat the border."""
    indices = torch.arange(-padding, size + padding).abs()
    return (size - 1) - ((size - 1) - indices).abs()


def _windows(padded: Tensor, height: int, width: int, draws: _Draws) -> Tensor:
    """A random window of each padded image, by one gather over flat pixels, which is three times as fast as three index tensors."""
    (batch, channels, padded_height, padded_width), device = padded.shape, padded.device
    limits = padded_height - height + 1, padded_width - width + 1
    offsets = moved(torch.stack([draws.below(limit) for limit in limits]), device)
    start = offsets[0] * padded_width + offsets[1]
    window = torch.arange(height, device=device)[:, None] * padded_width + torch.arange(width, device=device)
    index = (start[:, None] + window.flatten())[:, None].expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(batch, channels, height, width)
