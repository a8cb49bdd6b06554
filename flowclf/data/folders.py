"""The registered data sets in folders of images, one per class: ``image_folder``, a user's own, and ``imagenet``."""

from __future__ import annotations

import math
import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Len, Lt
from PIL import Image
from torch import Tensor

from flowclf.argument_types import NonNegativeFloat, NonNegativeInt, PositiveFraction, PositiveInt, ProperFraction
from flowclf.data.conversion import check_fraction, check_positive, split_by_class
from flowclf.data.decoding import check_failures, check_skip_corrupt, cores, decode_files
from flowclf.data.images import check_shape
from flowclf.data.records import RawData, Split
from flowclf.data.seeding import generator
from flowclf.data.streaming import MEMORY_GB, ImageFiles, StreamedSplit
from flowclf.errors import DataError, UsageError
from flowclf.progress import shown_progress

# file managers, archives and servers create these in folders of images
_NOT_IMAGES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found", "$recycle.bin"})


def image_folder(
    *,
    root: str,
    size: PositiveInt | Annotated[list[PositiveInt], Len(2, 2)] = 28,
    channels: Literal[1, 3] = 1,
    test_fraction: ProperFraction = 0.1,
    test_seed: NonNegativeInt = 0,
    skip_corrupt: NonNegativeInt | Annotated[float, Ge(0), Lt(0.5)] = 0.01,
    center_crop: PositiveFraction = 1.0,
    memory_gb: NonNegativeFloat = MEMORY_GB,
    workers: NonNegativeInt | None = None,
    cache: bool = True,
) -> RawData:
    """Read a folder of images with one folder per class, named after the class.

    The class folders are in ``root/train`` and ``root/test`` (or ``val``, ``valid``, ``validation``; in any case); or in
    ``root/train`` alone, or in ``root``: then a part of each class becomes the test set. Classes and files are sorted by name,
    then the examples shuffled with ``test_seed``. Every file in a class folder must be an image, whatever its name; hidden files
    and those of file managers are skipped.

    Images that fit in ``memory_gb`` are decoded once: the result is kept in memory and in the folder ``decoded`` of the cache, and
    read again until a file changes. ``$FLOWCLF_DECODED_GB`` limits its size (default 4 GB; 0 for no cache),
    ``flowclf cache --clear`` deletes it.

    More images are decoded each time they are used, in ``workers`` processes that are a few batches ahead. The batches are the
    same. Files that cannot be read are then found, named and counted as they are used: in training, the next image of the epoch
    that can be read takes the place; in evaluation, they are left out.

    Args:
        root: the folder.
        size: height and width in pixels, one number for both or ``[H, W]``; other images are scaled and cropped as in
            :func:`read_image`.
        channels: 1 for grey, 3 for RGB.
        test_fraction: fraction of each class that becomes the test set, in (0, 1), if there is no ``test`` folder.
        test_seed: random seed for that choice; independent of a run's seed, so that all runs have the same test set.
        skip_corrupt: largest number of files, or fraction of the files below 0.5, that are skipped with a warning if they cannot be
            read as images; with more it is an error, which lists them all. 0 skips none; nor does the default for fewer than 100.
        center_crop: fraction of the height and width of the largest part in the middle that is kept before scaling, in (0, 1].
            0.875 is usual for ImageNet.
        memory_gb: largest size of all decoded images that are kept in memory, in gigabytes (10^9 bytes); about twice as much is
            used while they are shared out among training, validation and test data. 0 keeps none.
        workers: number of processes that decode images which are not kept in memory; None for one per core, at most 8; 0 decodes
            in the process that uses them.
        cache: keep the decoded images on disk.

    Raises:
        UsageError: if the folder does not exist, or an argument is out of range.
        DataError: if folders beside ``train`` leave open which is the test set, there are fewer than two classes, a class has no
            images, a class folder contains a folder, the test folder has a class that the training folder lacks, or more files than
            ``skip_corrupt`` allows, or half of them, cannot be read as images.
    """
    shape = (channels, *_height_and_width(size))
    check_shape(shape, "image_folder")
    reading = Reading(skip_corrupt, center_crop, memory_gb, workers, cache)
    reading.check("image_folder")
    check_fraction(test_fraction, "image_folder: test_fraction")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UsageError(f"image_folder: root: there is no folder {folder}")
    train_folder, test_folder = _parts(folder)
    class_names = _class_names(train_folder)
    parts = [train_folder] if test_folder is None else [train_folder, test_folder]
    train, *test = _read(folder, parts, class_names, shape, reading)
    if test:
        order = torch.randperm(len(test[0]), generator=generator(test_seed, "test"))
        return RawData(train, test[0].take(order), tuple(class_names))
    kept, held_out = split_by_class(train.labels, test_fraction, test_seed, class_names)
    return RawData(train.take(kept), train.take(held_out), tuple(class_names))


def imagenet(
    *,
    root: str,
    size: PositiveInt | Annotated[list[PositiveInt], Len(2, 2)] = 224,
    center_crop: PositiveFraction = 0.875,
    skip_corrupt: NonNegativeInt | Annotated[float, Ge(0), Lt(0.5)] = 0.01,
    memory_gb: NonNegativeFloat = MEMORY_GB,
    workers: NonNegativeInt | None = None,
    cache: bool = True,
) -> RawData:
    """Read ImageNet, or a part of its classes, from ``root/train/<WordNet id>`` and ``root/val/<WordNet id>``.

    The names of the classes are the WordNet ids, such as ``n01440764``, in order: with all 1000 of them, class numbers are the
    usual ones. The validation images of the challenge are the test set; training images are held out for validation.

    Source: O. Russakovsky et al., ImageNet large scale visual recognition challenge, 2015.

    Args:
        root: the folder of ``train`` and ``val``.
        size: height and width in pixels, one number for both or ``[H, W]``.
        center_crop: as for :func:`image_folder`; by default as usual, 224 pixels of 256. Training images with
            ``augment: {resized_crop: 0.08}`` are cropped from the whole file instead.
        skip_corrupt: largest number of files, or fraction of the files, that may be skipped, as for :func:`image_folder`.
        memory_gb: size of decoded images, in gigabytes, above which they are decoded as they are used.
        workers: number of processes that decode then, as for :func:`image_folder`.
        cache: keep decoded images that fit in memory, as for :func:`image_folder`.

    Raises:
        UsageError: if a folder does not exist, or an argument is out of range.
        DataError: if a class is not named by a WordNet id; and as for :func:`image_folder`.
    """
    folder = Path(root).expanduser()
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            raise UsageError(f"imagenet: root: expected the folders train and val of WordNet ids, found no folder {folder / part}")
        for one in _class_folders(folder / part):
            if not re.fullmatch(r"n\d{8}", one.name):
                raise DataError(f"{one}: expected a class named by its WordNet id, such as n01440764")
    shape = (3, *_height_and_width(size, "imagenet"))
    check_shape(shape, "imagenet")
    reading = Reading(skip_corrupt, center_crop, memory_gb, workers, cache)
    reading.check("imagenet")
    class_names = _class_names(folder / "train")
    train, test = _read(folder, [folder / "train", folder / "val"], class_names, shape, reading)
    order = torch.randperm(len(test), generator=generator(0, "test"))
    return RawData(train, test.take(order), tuple(class_names))


def labelled_images(root: str | Path, shape: Sequence[int], class_names: Sequence[str]) -> Split:
    """Read all images of a folder with one folder per class, with labels in the order of ``class_names``, in random order.

    More than a gigabyte of decoded images is decoded each time it is used.

    Args:
        root: the folder; folders of some classes may be missing.
        shape: (C, H, W); images are scaled and cropped as in :func:`read_image`.
        class_names: names of the class folders.

    Raises:
        UsageError: if the folder does not exist.
        DataError: if there are no images, a folder has the name of no class, or a file cannot be read as an image.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    (found,) = _read(folder, [folder], class_names, tuple(shape), Reading())
    return found.take(torch.randperm(len(found), generator=generator(0, "test")))


class Reading(NamedTuple):
    """How images are read; the arguments of :func:`image_folder` of these names."""

    skip_corrupt: int | float = 0
    center_crop: float = 1.0
    memory_gb: float = MEMORY_GB
    workers: int | None = None
    cache: bool = True

    def check(self, where: str) -> None:
        """Raise UsageError if an argument is out of range."""
        check_skip_corrupt(self.skip_corrupt, f"{where}: skip_corrupt")
        for name, value, fits, expected in (
            ("center_crop", self.center_crop, 0 < self.center_crop <= 1, "a fraction greater than 0, at most 1"),
            ("memory_gb", self.memory_gb, 0 <= self.memory_gb < math.inf, "a number of gigabytes, 0 or more"),
        ):
            if isinstance(value, bool) or not fits:
                raise UsageError(f"{where}: {name}: expected {expected}, found {value!r}")
        workers = self.workers
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
            raise UsageError(f"{where}: workers: expected a number of processes, 0 or more, found {workers!r}")


def _height_and_width(size: int | Sequence[int], where: str = "image_folder") -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2:
        raise UsageError(f"{where}: size: expected one number or [height, width], found {size!r}")
    for side in sides:
        check_positive(side, f"{where}: size")
    return sides


def _class_names(folder: Path) -> list[str]:
    names = [path.name for path in _class_folders(folder)]
    for name in names:
        if not name.isprintable():
            raise DataError(f"{folder}: expected names of classes in printable UTF-8, found {name!r}")
    if len(names) < 2:
        raise DataError(f"{folder}: expected at least 2 folders, one per class, found {', '.join(names) or 'none'}")
    same = [_normalized(name) for name in names]
    for name, normalized in zip(names, same, strict=True):
        if same.count(normalized) > 1:
            raise DataError(f"{folder}: expected one folder per class, found two named '{name}', written in different characters")
    suffixes = Image.registered_extensions()
    loose = [one.name for one in _visible(folder) if os.path.splitext(one.name)[1].lower() in suffixes and not _is_folder(one)]
    if loose:
        shown = ", ".join(loose[:3]) + (", ..." if len(loose) > 3 else "")
        warnings.warn(f"{folder}: {len(loose)} images beside the folders of the classes are left out: {shown}", stacklevel=3)
    return names


def _normalized(name: str) -> str:
    # Some systems store an accent as a character of its own.
    return unicodedata.normalize("NFC", name)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if _is_visible(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be read: {error.strerror}") from error


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _NOT_IMAGES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # The entry's own answer needs no access to the disk, but is an error for a link to itself.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _parts(folder: Path) -> tuple[Path, Path | None]:
    """The folder of training data, and that of test data if there is one."""
    # A class may be called "train" or "test": then it holds images, not folders.
    parts = {path: path.name.lower() for path in _class_folders(folder) if _class_folders(path)}
    train = [path for path, name in parts.items() if name in ("train", "training")]
    if not train:
        return folder, None
    others = [path for path in parts if path not in train]
    test = [path for path in others if parts[path] in ("test", "testing", "val", "valid", "validation")]
    if len(train) > 1 or len(others) > 1 or test != others:
        found = ", ".join(path.name for path in parts)
        raise DataError(f"{folder}: expected train, and beside it one folder of test data (test, val or validation), found {found}")
    return train[0], test[0] if test else None


def _class_folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _visible(folder) if _is_folder(entry)]


def _read(root: Path, parts: Sequence[Path], class_names: Sequence[str], shape: tuple[int, ...], reading: Reading) -> list[Split]:
    """Read all images below each part of a folder, ordered by class and file name."""
    files, labels, ends = [], [], []
    for part in parts:
        for path, label in _labelled_files(part, class_names):
            files.append(path)
            labels.append(label)
        ends.append(len(files))
    if len(files) * math.prod(shape) > round(reading.memory_gb * 1e9):
        return _streamed(root, files, torch.tensor(labels), ends, shape, reading)
    decoded = decode_files(root, files, shape, center_crop=reading.center_crop, cached=reading.cache)
    check_failures(decoded, files, reading.skip_corrupt)
    sizes = [end - start - sum(start <= index < end for index in decoded.failures) for start, end in pairwise([0, *ends])]
    read = torch.tensor([label for index, label in enumerate(labels) if index not in decoded.failures])
    return [Split(*both) for both in zip(torch.split(decoded.images, sizes), torch.split(read, sizes), strict=True)]


def _streamed(
    root: Path, files: list[str], labels: Tensor, ends: Sequence[int], shape: tuple[int, ...], reading: Reading
) -> list[Split]:
    workers, needed = cores() if reading.workers is None else reading.workers, len(files) * math.prod(shape) / 1e9
    with shown_progress() as progress:
        progress.message(
            f"{root}: {len(files)} images take {needed:.2g} GB, more than the {reading.memory_gb:.2g} of memory_gb: they are "
            f"decoded as they are used, in {f'{workers} processes' if workers else 'this process'}"
        )
    images = ImageFiles.of(
        files,
        shape,
        skip_corrupt=reading.skip_corrupt,
        center_crop=reading.center_crop,
        workers=workers,
        memory_gb=reading.memory_gb,
    )
    return [StreamedSplit(images, torch.arange(start, end), labels[start:end]) for start, end in pairwise([0, *ends])]


def _labelled_files(folder: Path, class_names: Sequence[str]) -> list[tuple[str, int]]:
    """All files below a folder with their labels; class folders may be missing, but not unknown."""
    labels = {_normalized(name): label for label, name in enumerate(class_names)}
    files: list[tuple[str, int]] = []
    for class_folder in _class_folders(folder):
        label = labels.get(_normalized(class_folder.name))
        if label is None:
            raise DataError(f"{class_folder}: expected a class of the training folder ({', '.join(class_names)})")
        members = _visible(class_folder)
        if not members:
            raise DataError(f"{class_folder}: expected at least one image of class '{class_folder.name}', found none")
        for entry in members:
            if _is_folder(entry):
                raise DataError(f"{entry.path}: expected only images in a class folder, found a folder")
        files += [(entry.path, label) for entry in members]
    if not files:
        raise DataError(f"{folder}: expected folders of images, found none")
    return files
