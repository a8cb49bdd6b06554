"""The reader of one image file."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL import __version__ as pillow_version
from torch import Tensor

from flowclf.data.pixels import KNOWN_FROM
from flowclf.errors import DataError, UsageError

DECODER = f"flowclf 1, Pillow {pillow_version}"
"""What decodes an image; the number changes when the same file gives other pixels."""


def read_image(path: str | Path, shape: Sequence[int]) -> Tensor:
    """Read one image, in any format that Pillow reads, as uint8 (C, H, W), 0..255.

    The image is rotated according to its EXIF orientation, put on white where it is transparent, scaled (bicubic) to
    cover the target and cropped at the centre; an image of the target size is not changed. The first frame of an
    animation is used; 16-bit pixels are reduced to their upper 8 bits.

    Args:
        path: path of the file.
        shape: (C, H, W), with C = 1 for grey or 3 for RGB.

    Raises:
        UsageError: if the file does not exist, or the shape is not that of a grey or RGB image.
        DataError: if the file is not a complete image, has channels of other than 8 or 16 bits, has 16-bit channels that use the
            lower 12 bits only, or is so large that Pillow considers it a decompression bomb.
    """
    check_shape(shape, "read_image")
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    with bombs_refused():
        try:
            return torch.from_numpy(decode(str(path), shape))
        except DataError as error:
            raise DataError(f"{path}: expected an image, found a file that cannot be read as one: {error}") from error


def check_shape(shape: Sequence[int], where: str) -> None:
    """Raise UsageError unless this is the shape of a grey or RGB image."""
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise UsageError(f"{where}: expected a shape (1, H, W) or (3, H, W), found {tuple(shape)}")


@contextlib.contextmanager
def bombs_refused() -> Iterator[None]:
    """Within the block, all threads raise an error where Pillow would warn of a decompression bomb."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(path: str, shape: Sequence[int], center_crop: float = 1.0) -> NDArray[np.uint8]:
    """As :func:`read_image`, within :func:`bombs_refused`, which is not for each thread; the DataError has the reason alone.

    Of the largest part in the middle that has the ratio of the sides, the image shows the fraction ``center_crop`` of each side.
    """
    channels, height, width = shape
    return _decoded(path, channels, lambda image: ImageOps.fit(image, (width, height), bleed=(1 - center_crop) / 2))


def decode_whole(path: str, channels: int) -> NDArray[np.uint8]:
    """As :func:`decode`, in the file's own resolution."""
    return _decoded(path, channels, lambda image: image)


def _decoded(path: str, channels: int, fitted: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8]:
    if not os.path.exists(path):
        raise DataError("a link to a file that does not exist")
    # Opening a pipe would wait for its writer.
    if not os.path.isfile(path):
        raise DataError("not a regular file")
    try:
        with Image.open(path) as image:
            deep = any("16" in str(tile[3]) for tile in image.tile)
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(fitted(with_channels(upright, channels, deep)))
    except Exception as error:  # Pillow's readers raise exceptions of any type on malformed files
        raise DataError(str(error).replace(f" {path!r}", "") or type(error).__name__) from error
    return np.array(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1), order="C")


def with_channels(image: Image.Image, channels: int, deep: bool = False) -> Image.Image:
    """An image as grey (1 channel) or RGB (3), on white where it is transparent; ``deep`` if its file has 16 bits per channel.

    Raises:
        ValueError: if the range of its pixels is not known.
    """
    if image.mode.startswith("I;16"):
        values, transparent = np.asarray(image).astype(np.uint16), image.info.get("transparency")
        if values.max(initial=0) < KNOWN_FROM:
            raise _UnknownRangeError(f"up to {values.max(initial=0)}")
        grey = (values >> 8).astype(np.uint8)
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        image = Image.fromarray(grey)
    elif deep and image.mode in ("RGB", "RGBA") and int(np.asarray(image)[..., :3].max(initial=0)) < KNOWN_FROM >> 8:
        # Pillow keeps the upper 8 bits.
        raise _UnknownRangeError(f"below {KNOWN_FROM}")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, 32 bits each, have no known range; expected 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "LAB":
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


class _UnknownRangeError(ValueError):
    def __init__(self, values: str) -> None:
        super().__init__(f"16-bit pixels {values} only, whose range is unknown; rescale them to 0..65535")
