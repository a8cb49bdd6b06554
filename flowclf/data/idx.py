"""Reader of IDX files of unsigned bytes, the format of MNIST and its successors.

A file is 0, 0, the type (8 for unsigned bytes), the number of dimensions, each dimension as a big-endian 32-bit
integer, then the values, with the last dimension varying fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from flowclf.data.records import RawData, Split
from flowclf.errors import DataError, UnreachableError

_UNSIGNED_BYTE = 8


def read_bytes(path: Path) -> bytes:
    """Read a whole file; UnreachableError if that is impossible."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreachableError(f"cannot read {path}: {error.strerror or error}") from error


def gunzip(content: bytes, source: str) -> bytes:
    """Decompress in memory; DataError if the content is not a complete gzip file."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{source}: expected a gzip file, found content that does not decompress: {error}") from error


def read_idx(content: bytes, source: str, dimensions: int) -> Tensor:
    """Parse an IDX file of unsigned bytes, strictly.

    Args:
        content: the whole file, uncompressed.
        source: name of the file in error messages.
        dimensions: required number of dimensions: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        uint8, of the shape in the file's header.

    Raises:
        DataError: if the magic number, the number of dimensions or the number of bytes is not the expected one.

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]), "labels", dimensions=1)
        tensor([7, 3], dtype=torch.uint8)
    """
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    header = 4 + 4 * dimensions
    if content[:4] != magic:
        raise DataError(f"{source}: expected the IDX magic number {magic.hex()}, found {content[:4].hex() or 'an empty file'}")
    if len(content) < header:
        raise DataError(f"{source}: expected an IDX header of {header} bytes, found {len(content)} bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise DataError(f"{source}: expected {expected} bytes for shape {shape}, found {len(content)}")
    if expected == header:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)


def idx_split(images: bytes, labels: bytes, images_source: str, labels_source: str) -> Split:
    """Build a split of grey images from the content of two IDX files.

    Raises:
        DataError: if :func:`read_idx` raises it, or the numbers of labels and images differ.
    """
    pixels = read_idx(images, images_source, dimensions=3)
    numbers = read_idx(labels, labels_source, dimensions=1)
    if len(pixels) != len(numbers):
        raise DataError(f"{labels_source}: expected {len(pixels)} labels, one per image, found {len(numbers)}")
    return Split(pixels[:, None], numbers.to(torch.int64))


def idx_raw_data(folder: Path, content: Callable[[Path], bytes], class_names: tuple[str, ...]) -> RawData:
    """Raw data from four IDX files named as MNIST's; ``content`` reads one of them, uncompressed."""

    def split(part: str) -> Split:
        images, labels = folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"
        return idx_split(content(images), content(labels), str(images), str(labels))

    return RawData(split("train"), split("t10k"), class_names)
