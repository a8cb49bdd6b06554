"""The cache of decoded images: one file for each folder and size, in ``decoded`` in the cache folder.

A file is in the format of safetensors, so that reading it runs no code. It has a hash of the names, sizes and times of the files
that it was made of, and the SHA-256 of its content; if one of them is another, the images are decoded again. The cache holds
``$FLOWCLF_DECODED_GB`` gigabytes, by default 4, 0 for no cache; the files that were used longest ago make room for others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from flowclf.data.images import DECODER
from flowclf.errors import UsageError
from flowclf.files import atomic_write, cache_folder

_VARIABLE = "FLOWCLF_DECODED_GB"
_DEFAULT_GB = 4.0
_HEADER_LIMIT = 10**6


def limit() -> int:
    """Largest size of the cache in bytes; 0 for no cache.

    Raises:
        UsageError: if ``$FLOWCLF_DECODED_GB`` is not a number from 0.
    """
    text = os.environ.get(_VARIABLE) or str(_DEFAULT_GB)
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise UsageError(f"{_VARIABLE}: expected a number of gigabytes, 0 or more, found {text!r}")
    return int(size * 1e9)


def folder() -> Path:
    """The folder of the cache, which may not exist yet."""
    return cache_folder() / "decoded"


def size() -> int:
    """Size of the cache in bytes."""
    return sum(status.st_size for _, status in _files())


def clear() -> int:
    """Delete all decoded images; returns the number of bytes that this freed.

    Raises:
        UsageError: if a file cannot be deleted.
    """
    freed = 0
    for path, status in _files():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{path} cannot be deleted: {error.strerror}") from error
        freed += status.st_size
    return freed


@dataclass(frozen=True)
class Entry:
    """The place of a folder's images in the cache, and what identifies them.

    Attributes:
        path: the file.
        fingerprint: SHA-256 of the names, sizes and times of the images' files, and of how they are decoded.
        count: number of the files.
        shape: (C, H, W) of the decoded images.
    """

    path: Path
    fingerprint: str
    count: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, root: Path, files: Sequence[str], shape: Sequence[int], center_crop: float = 1.0) -> Entry:
        """The entry of a folder's images at a size, and of a fraction of them; their paths begin with the folder's."""
        shape = tuple(shape)
        # Without a crop the name is that of earlier versions.
        place = [os.path.realpath(root), *shape, *([center_crop] if center_crop != 1 else [])]
        facts = [DECODER, *place, *((path.removeprefix(str(root)), *_facts(path)) for path in files)]
        return cls(folder() / f"{_hash(place)[:32]}.safetensors", _hash(facts), len(files), shape)

    def load(self) -> tuple[Tensor, list[int]] | None:
        """The images (M, C, H, W), and the indices of the files that could not be read; None if the cache does not have them."""
        from safetensors import safe_open

        try:
            with safe_open(self.path, "pt") as stored:
                about = stored.metadata() or {}
                failed = json.loads(about.get("failed", "null"))
                expected = [self.count - len(failed), *self.shape]
                found = stored.get_slice("images")
                if about.get("fingerprint") != self.fingerprint or (found.get_dtype(), found.get_shape()) != ("U8", expected):
                    return None
                images: Tensor = stored.get_tensor("images")
            whole = hashlib.sha256(images.numpy().data).hexdigest() == about.get("sha256")
            if not whole or sorted({index for index in failed if 0 <= index < self.count}) != failed:
                return None
            # The file that was used last is deleted last.
            os.utime(self.path)
        except Exception:  # whatever is wrong with a file of the cache, the images are decoded again
            return None
        return images, failed

    def store(self, images: Tensor, failed: Sequence[int]) -> str | None:
        """Write images (M, C, H, W) and the indices of the files that could not be read; returns why this was not possible."""
        needed = images.numel() + _HEADER_LIMIT
        if needed > limit():
            return f"{needed / 1e9:.1f} GB are more than the cache may hold ({_VARIABLE} is the limit in GB)"
        about = {
            "fingerprint": self.fingerprint,
            "sha256": hashlib.sha256(images.numpy().data).hexdigest(),
            "failed": json.dumps(list(failed)),
        }
        tensor = {"dtype": "U8", "shape": list(images.shape), "data_offsets": [0, images.numel()]}
        header = json.dumps({"__metadata__": about, "images": tensor}).encode()
        try:
            _make_room(needed, self.path)
            with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
                # The library's own writer holds a copy of all of it in memory.
                file.write(struct.pack("<Q", len(header)) + header)
                file.write(images.contiguous().numpy().data)
        except OSError as error:
            return f"{error.filename or self.path}: {error.strerror or error}"
        return None


def _make_room(needed: int, target: Path) -> None:
    """Delete what was used longest ago, until there is room in the cache for a file that replaces another."""
    others = [(path, status) for path, status in _files() if path != target]
    others.sort(key=lambda item: item[1].st_mtime_ns)
    free = limit() - sum(status.st_size for _, status in others)
    for path, status in others:
        if free >= needed:
            return
        path.unlink(missing_ok=True)
        free += status.st_size


def _files() -> list[tuple[Path, os.stat_result]]:
    found = []
    with contextlib.suppress(OSError):
        for path in folder().iterdir():
            # Another process may delete it at any time.
            with contextlib.suppress(OSError):
                found.append((path, path.stat()))
    return found


def _facts(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    # An edited file may get its old modification time back, but not its change time.
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
