"""Splits whose images stay in their files: worker processes decode them batch by batch, ahead of their use."""

from __future__ import annotations

import math
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flowclf.data.augmentation import Augmentation
from flowclf.data.decoding import skippable
from flowclf.data.images import bombs_refused, decode, decode_whole
from flowclf.data.records import Batch, Split
from flowclf.data.seeding import generator
from flowclf.errors import DataError, UsageError
from flowclf.host_memory import moved

MEMORY_GB = 1.0
"""Default budget of the decoded images of a data set, in gigabytes (10^9 bytes); larger sets are decoded as they are used."""

_CHUNK = 64
_AHEAD_BATCHES = 4
_AHEAD_BYTES = 2**28
_MOST_LISTED = 1000


class CorruptFiles:
    """Files of a data set that cannot be read: each is named once, in a warning, and they are counted up to a limit.

    Args:
        total: number of files of the data set.
        skip_corrupt: largest number of files, or fraction of the files, that may be skipped; never half of them.

    Example:
        >>> corrupt = CorruptFiles(100, 0.02)
        >>> corrupt.allowed, corrupt.count
        (2, 0)
    """

    def __init__(self, total: int, skip_corrupt: int | float) -> None:
        self.total = total
        self.allowed = min(skippable(skip_corrupt, total), (total - 1) // 2)
        self._reasons: dict[str, str] = {}

    @property
    def count(self) -> int:
        """Number of files found so far that cannot be read."""
        return len(self._reasons)

    def add(self, failures: list[tuple[str, str]]) -> None:
        """Record files that could not be read, with the reasons; again or for the first time.

        Raises:
            DataError: if there are more than allowed by now; the message lists them.
        """
        new = {path: reason for path, reason in failures if path not in self._reasons}
        self._reasons |= new
        if self.count > self.allowed:
            listed = [f"  {path}: {reason}" for path, reason in list(self._reasons.items())[:_MOST_LISTED]]
            raise DataError(
                f"{self.count} files that cannot be read as images were found so far, and skip_corrupt allows {self.allowed} of "
                f"the {self.total}; repair or remove them, or allow more, but fewer than half:\n" + "\n".join(listed)
            )
        for path, reason in new.items():
            warnings.warn(
                f"{path}: cannot be read as an image and is skipped: {reason} ({self.count} so far, {self.allowed} may be)",
                stacklevel=2,
            )


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The image files of a data set, and how they are decoded.

    Attributes:
        paths: (N,), as bytes: one array, which processes share, unlike a list of strings.
        shape: (C, H, W) of the decoded images.
        center_crop: fraction of each side that is kept, see :func:`~flowclf.data.images.decode`.
        workers: number of processes that decode; 0 decodes in the process that uses the images.
        memory_bytes: largest size of what :meth:`Split.loaded` returns.
        corrupt: the files that could not be read so far.
    """

    paths: NDArray[np.bytes_]
    shape: tuple[int, ...]
    center_crop: float
    workers: int
    memory_bytes: int
    corrupt: CorruptFiles

    @classmethod
    def of(
        cls,
        files: list[str],
        shape: tuple[int, ...],
        *,
        skip_corrupt: int | float = 0,
        center_crop: float = 1.0,
        workers: int = 0,
        memory_gb: float = MEMORY_GB,
    ) -> ImageFiles:
        """Files by their paths; the other arguments are those of :func:`flowclf.data.image_folder`."""
        paths = np.array([os.fsencode(file) for file in files])
        # Also without a budget, a training begins with some images in memory.
        memory_bytes = int(max(memory_gb, MEMORY_GB) * 1e9)
        return cls(paths, tuple(shape), center_crop, workers, memory_bytes, CorruptFiles(len(files), skip_corrupt))


class StreamedSplit(Split):
    """A split of image files, which are decoded each time they are used.

    Its labels are in memory. ``take``, ``head``, ``sample`` and ``to`` decode nothing; ``inputs`` decodes all images.

    Args:
        files: the files of the whole data set.
        places: (N,), int64, the indices of the split's files.
        labels: (N,), int64, class numbers, on the device to which images are moved.
    """

    files: ImageFiles
    places: Tensor

    def __init__(self, files: ImageFiles, places: Tensor, labels: Tensor) -> None:
        for name, value in (("files", files), ("places", places), ("labels", labels)):
            object.__setattr__(self, name, value)

    @property
    def inputs(self) -> Tensor:
        """All images (N, C, H, W), uint8; raises as :meth:`loaded`, and DataError if one cannot be read."""
        found = self.loaded()
        if len(found) < len(self):
            raise DataError(f"{len(self) - len(found)} of {len(self)} files cannot be read as images; leave them out with loaded()")
        return found.inputs

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of one image."""
        return self.files.shape

    @property
    def dtype(self) -> torch.dtype:
        """uint8."""
        return torch.uint8

    def loaded(self) -> Split:
        """Decode all images; see :meth:`Split.loaded`."""
        needed = len(self) * math.prod(self.shape)
        if needed > self.files.memory_bytes:
            raise UsageError(
                f"{len(self)} images of shape {self.shape} would take {needed / 1e9:.2g} GB of memory, and memory_gb allows "
                f"{self.files.memory_bytes / 1e9:.2g}; raise memory_gb, or use fewer or smaller images"
            )
        parts = list(self.batches(_CHUNK))
        inputs = [part.inputs for part in parts] or [torch.empty(0, *self.shape, dtype=torch.uint8, device=self.device)]
        return Split(torch.cat(inputs), torch.cat([part.labels for part in parts] or [self.labels[:0]]))

    def batches(self, size: int) -> Iterator[Split]:
        """Decode the images part by part; see :meth:`Split.batches`."""
        # Workers have small parts in hand, so that large ones need no more memory.
        chunk = min(size, _CHUNK)
        images, kept = torch.empty(0, *self.shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
        for read in self._reads(_InOrder(self.files, self.places, chunk), range(math.ceil(len(self) / chunk)), chunk):
            images, kept = torch.cat((images, read.images)), torch.cat((kept, read.kept))
            while len(kept) >= size:
                yield self._part(images[:size], kept[:size])
                images, kept = images[size:], kept[size:]
        if len(kept):
            yield self._part(images, kept)

    def _part(self, images: Tensor, kept: Tensor) -> Split:
        return Split(moved(images, self.device), self.labels[moved(kept, self.device)])

    def train_batches(
        self, order: Tensor, batch_size: int, augment: Augmentation, purpose: tuple[int, int], positions: range, share: slice
    ) -> Iterator[Batch]:
        """Decode and augment the batches of an epoch; see :meth:`flowclf.data.DataSet.train_batches`.

        An image that cannot be read is replaced by the next in the order of the epoch that can, so that every batch is full.

        Args:
            order: (N,), int64, the order of the epoch.
            batch_size: examples per batch.
            augment: random changes.
            purpose: (seed, epoch).
            positions: the numbers of the batches.
            share: the places in each batch that are wanted.
        """
        reading = _Shuffled(self.files, self.places, order.cpu(), batch_size, augment, purpose, share)
        for read in self._reads(reading, positions, batch_size):
            source = torch.Generator()
            source.set_state(read.state)
            yield Batch(read.images.to(self.device, non_blocking=True), self.labels[moved(read.kept, self.device)], source)

    def _reads(self, reading: Dataset[_Read], order: range, batch_size: int) -> Iterator[_Read]:
        """What a data set reads, in order, ahead of its use."""
        workers = min(self.files.workers, len(order))
        ahead = _AHEAD_BYTES // max(1, workers * batch_size * math.prod(self.shape))
        with warnings.catch_warnings():
            # The number of workers is the user's, or that of the cores.
            warnings.filterwarnings("ignore", "This DataLoader will create")
            loader: DataLoader[_Read] = DataLoader(
                reading,
                batch_size=None,
                sampler=order,
                num_workers=workers,
                collate_fn=_as_read,
                pin_memory=self.device.type == "cuda",
                prefetch_factor=max(1, min(ahead, _AHEAD_BATCHES)) if workers else None,
                worker_init_fn=_prepare_worker,
                # Without one of its own, the loader would draw from the global generator.
                generator=torch.Generator(),
            )
        for read in loader:
            self.files.corrupt.add(read.failures)
            yield read

    def head(self, n: int) -> StreamedSplit:
        """The first ``n`` examples; see :meth:`Split.head`."""
        if n < 0:
            raise UsageError(f"head: expected 0 or more examples, found {n}")
        return StreamedSplit(self.files, self.places[:n], self.labels[:n])

    def take(self, indices: Tensor) -> StreamedSplit:
        """The examples at these indices; see :meth:`Split.take`."""
        return StreamedSplit(self.files, self.places[indices.to(self.places.device)], self.labels[indices.to(self.device)])

    def to(self, device: torch.device | str) -> StreamedSplit:
        """The same split, whose images are moved to a device; see :meth:`Split.to`."""
        return StreamedSplit(self.files, self.places, self.labels.to(device))


class _Read(NamedTuple):
    """What a worker sends: images, their indices in the split, the state of the batch's generator, and files with reasons."""

    images: Tensor
    kept: Tensor
    state: Tensor
    failures: list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Files(Dataset[_Read]):
    files: ImageFiles
    places: Tensor

    def path(self, index: int) -> str:
        return os.fsdecode(bytes(self.files.paths[int(self.places[index])]))


@dataclass(frozen=True, eq=False)
class _InOrder(_Files):
    """Item k is the k-th part of the images."""

    size: int

    def __getitem__(self, position: int) -> _Read:
        images, kept, failures = [], [], []
        with bombs_refused():
            for index in range(position * self.size, min((position + 1) * self.size, len(self.places))):
                try:
                    images.append(torch.from_numpy(decode(self.path(index), self.files.shape, self.files.center_crop)))
                    kept.append(index)
                except DataError as error:
                    failures.append((self.path(index), str(error)))
        stacked = torch.stack(images) if images else torch.empty(0, *self.files.shape, dtype=torch.uint8)
        return _Read(stacked, torch.tensor(kept, dtype=torch.int64), torch.empty(0, dtype=torch.uint8), failures)


@dataclass(frozen=True, eq=False)
class _Shuffled(_Files):
    """Item k is the share of batch k of an epoch, augmented."""

    order: Tensor
    batch_size: int
    augment: Augmentation
    purpose: tuple[int, int]
    share: slice

    def __getitem__(self, position: int) -> _Read:
        (seed, epoch), start = self.purpose, position * self.batch_size
        whole = min(self.batch_size, len(self.order) - start)
        source = generator(seed, "batch", epoch, position)
        crops = self.augment.crop_seeds(whole, source) if self.augment.resized_crop else [None] * whole
        images, kept, failures = [], [], dict[str, str]()
        with bombs_refused():
            for place in range(whole)[self.share]:
                for step in range(len(self.order)):
                    index = int(self.order[(start + place + step) % len(self.order)])
                    try:
                        images.append(self._image(self.path(index), crops[place]))
                        kept.append(index)
                        break
                    except DataError as error:
                        failures[self.path(index)] = str(error)
                    if len(failures) > self.files.corrupt.allowed:
                        # The process that uses the batch raises the error.
                        return _Read(torch.empty(0), torch.empty(0), source.get_state(), list(failures.items()))
            changed = torch.stack(images) if images else torch.empty(0, *self.files.shape, dtype=torch.uint8)
            if self.augment and images:
                changed = self.augment.after_crop(changed, source, whole=whole, share=self.share)
        return _Read(changed, torch.tensor(kept, dtype=torch.int64), source.get_state(), list(failures.items()))

    def _image(self, path: str, crop: int | None) -> Tensor:
        channels, *size = self.files.shape
        if crop is None:
            return torch.from_numpy(decode(path, self.files.shape, self.files.center_crop))
        return self.augment.cropped(torch.from_numpy(decode_whole(path, channels)), size, crop)


def _as_read(read: Any) -> Any:
    return read


def _prepare_worker(worker: int) -> None:
    # The process that uses the images decides what an interrupt means, and ends its workers.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
