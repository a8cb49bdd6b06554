"""Pixels of other types and ranges as uint8."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowclf.errors import DataError

_CHUNK = 1000
_BLACK = 2 / 255
KNOWN_FROM = 2**12
"""Pixels of 16 bits that are all smaller than this may be of 10 or 12 bits, so that their range is not known."""


def pixels_from(images: NDArray[Any], where: str, pixel_max: float | None = None) -> NDArray[np.uint8]:
    """Copy images (N, C, H, W) to uint8, 0..255.

    Pixels v from 0 to ``pixel_max`` become round(255 v / ``pixel_max``); integers of a range of 2^n, n > 8, are reduced to their
    upper 8 bits, as those of image files are.

    Args:
        images: uint8; floating point; or other integers.
        where: their name in error messages.
        pixel_max: the value of white; by default 255 for uint8, 1 for floating point, and 65535 for uint16. Other integers have no
            default, nor have 16-bit pixels that are all below 4096, which may be of 10 or 12 bits.

    Raises:
        DataError: if a pixel is outside 0..``pixel_max``, or not finite; the range is not known; or floating-point images would all
            be black.

    Example:
        >>> pixels_from(np.array([[[[0.0, 0.5, 1.0]]]]), "images").tolist()
        [[[[0, 128, 255]]]]
    """
    floating = images.dtype.kind == "f"
    low, high = float(images.min()), float(images.max())
    white = _white(images, where, high) if pixel_max is None else pixel_max
    found = f"found {images.dtype} from {low:g} to {high:g}"
    if not 0 <= low <= high <= white:
        hint = "; undo a normalisation" if low < 0 else "; pixel_max states the value of white" if pixel_max is None else ""
        raise DataError(f"{where}: expected pixels from 0 to {white:g}, {found}{hint}")
    if floating and 0 < high / white < _BLACK:
        raise DataError(f"{where}: expected pixels from 0 to {white:g}, {found}, all black; pixel_max states the value of white")
    pixels = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        if not floating and (white + 1) % 256 == 0:
            pixels[start : start + _CHUNK] = chunk // int((white + 1) // 256)
        else:
            pixels[start : start + _CHUNK] = np.floor(chunk * (255 / white) + 0.5)
    return pixels


def _white(images: NDArray[Any], where: str, high: float) -> float:
    if images.dtype.kind == "f" or images.dtype == np.uint8:
        return 1.0 if images.dtype.kind == "f" else 255.0
    if images.dtype != np.uint16 or high < KNOWN_FROM:
        found = f"found {images.dtype} up to {high:g}, whose range is unknown"
        raise DataError(f"{where}: expected uint8 images, 0..255, {found}; pixel_max states the value of white")
    return 65535.0
