"""Decoding of many image files at once: in threads, with progress, and once, because the result is kept in a cache.

The whole result is held in memory; :mod:`flowclf.data.streaming` decodes sets that do not fit.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from flowclf.data import decoded_cache
from flowclf.data.images import bombs_refused, decode
from flowclf.errors import DataError, UsageError
from flowclf.progress import Progress, shown_progress

_ANNOUNCED = 1000
"""Number of files from which on decoding is announced: it takes seconds."""
_MOST_NAMED = 1000
_STEP = 100


class Decoded(NamedTuple):
    """The images of a list of files, and what is wrong with the files that have none.

    Attributes:
        images: (M, C, H, W), uint8, 0..255, in the order of the files.
        failures: reason by index in the list, for each of the files that cannot be read.
    """

    images: Tensor
    failures: dict[int, str]


def decode_files(
    folder: Path, files: Sequence[str], shape: Sequence[int], *, center_crop: float = 1.0, cached: bool = True
) -> Decoded:
    """Decode image files as :func:`~flowclf.data.images.read_image` does, or take them from the cache.

    Args:
        folder: the folder of all the files, which names the entry of the cache.
        files: the files.
        shape: (C, H, W).
        center_crop: fraction of each side that is kept, see :func:`~flowclf.data.images.decode`.
        cached: whether to use the cache; a file that has changed in size or time is decoded again, with all others.
    """
    entry = decoded_cache.Entry.of(folder, files, shape, center_crop) if cached and decoded_cache.limit() else None
    if entry is not None and (found := entry.load()) is not None:
        images, failed = found
        failures = _failures(files, failed, shape)
        if failures is not None:
            return Decoded(images, failures)
    with shown_progress() as progress:
        if len(files) >= _ANNOUNCED:
            kept = f"; the result is kept in {entry.path.parent}" if entry else ""
            progress.message(f"{folder}: decoding {len(files)} images{kept}")
        decoded = _decode(files, shape, center_crop, progress)
        if entry is not None and (problem := entry.store(decoded.images, sorted(decoded.failures))):
            progress.message(f"{folder}: the decoded images are not kept: {problem}")
    return decoded


def check_failures(decoded: Decoded, files: Sequence[str], skip_corrupt: int | float) -> None:
    """Warn of the files that cannot be read if they may be skipped.

    Args:
        decoded: the images and failures of the files.
        files: the files.
        skip_corrupt: largest number of files, or fraction of the files, that may be skipped.

    Raises:
        DataError: if there are more, or they are half of the files or more; the message lists all of them.
    """
    failures = decoded.failures
    if not failures:
        return
    allowed = skippable(skip_corrupt, len(files))
    counted = f"{len(failures)} of {len(files)} files cannot be read as images"
    if 2 * len(failures) >= len(files):
        hint = ", too many to skip: fewer than half may be"
    elif len(failures) > allowed:
        allows = f"skip_corrupt allows {allowed}; " if allowed else ""
        hint = f"; repair or remove them ({allows}skip_corrupt: {len(failures)} would skip them, with a warning)"
    else:
        warnings.warn(f"{counted} and are skipped:\n{_listed(failures, files)}", stacklevel=2)
        return
    raise DataError(f"{counted}{hint}:\n{_listed(failures, files)}")


def skippable(skip_corrupt: int | float, files: int) -> int:
    """Number of files that may be skipped, from a number or a fraction of the files."""
    return skip_corrupt if isinstance(skip_corrupt, int) else int(skip_corrupt * files)


def check_skip_corrupt(value: int | float, where: str) -> None:
    """Raise UsageError unless the value is an integer of at least 0 or a fraction below 1/2."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not whole and not (isinstance(value, float) and 0 <= value < 0.5):
        raise UsageError(f"{where}: expected a number of files, 0 or more, or a fraction of the files below 0.5, found {value!r}")


def _listed(failures: Mapping[int, str], files: Sequence[str]) -> str:
    lines = [f"  {files[index]}: {failures[index]}" for index in sorted(failures)[:_MOST_NAMED]]
    return "\n".join([*lines, *([f"  and {len(failures) - _MOST_NAMED} more"] if len(failures) > _MOST_NAMED else [])])


def _failures(files: Sequence[str], failed: Sequence[int], shape: Sequence[int]) -> dict[int, str] | None:
    """The reasons, found again; None if one of the files can be read by now, which a busy disk may have prevented."""
    failures: dict[int, str] = {}
    with bombs_refused():
        for index in failed:
            try:
                decode(files[index], shape)
            except DataError as error:
                failures[index] = str(error)
            else:
                return None
    return failures


def _decode(files: Sequence[str], shape: Sequence[int], center_crop: float, progress: Progress) -> Decoded:
    images = torch.empty(len(files), *shape, dtype=torch.uint8)
    failures: dict[int, str] = {}

    def fill(start: int) -> int:
        chosen = range(start, min(start + _STEP, len(files)))
        for index in chosen:
            try:
                images[index] = torch.from_numpy(decode(files[index], shape, center_crop))
            except DataError as error:
                failures[index] = str(error)
        return len(chosen)

    # Formats register themselves when first used, which threads must not do at the same time.
    Image.init()
    with bombs_refused(), progress.task("decoding images", len(files)) as task:
        pool, began, done = ThreadPoolExecutor(cores()), time.monotonic(), 0
        try:
            for count in pool.map(fill, range(0, len(files), _STEP)):
                done += count
                task.advance(count, **{"images/s": round(done / max(time.monotonic() - began, 1e-9))})
        finally:
            pool.shutdown(cancel_futures=True)
    if failures:
        images = images[[index for index in range(len(files)) if index not in failures]]
    return Decoded(images, failures)


def cores() -> int:
    """Number of cores to decode on: those that this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, usable)
