"""The registered data set ``image_folder``, a user's images in one folder per class."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Len, Lt
from PIL import Image

from flowclf.argument_types import NonNegativeInt, PositiveInt, ProperFraction
from flowclf.data.conversion import check_fraction, check_positive, split_by_class
from flowclf.data.decoding import check_failures, check_skip_corrupt, decode_files
from flowclf.data.images import check_shape
from flowclf.data.records import RawData, Split
from flowclf.data.seeding import generator
from flowclf.errors import DataError, UsageError

# file managers, archives and servers create these in folders of images
_NOT_IMAGES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found", "$recycle.bin"})


def image_folder(
    *,
    root: str,
    size: PositiveInt | Annotated[list[PositiveInt], Len(2, 2)] = 28,
    channels: Literal[1, 3] = 1,
    test_fraction: ProperFraction = 0.1,
    test_seed: NonNegativeInt = 0,
    skip_corrupt: NonNegativeInt | Annotated[float, Ge(0), Lt(0.5)] = 0,
    cache: bool = True,
) -> RawData:
    """Read a folder of images with one folder per class, named after the class.

    The class folders are in ``root/train`` and ``root/test`` (or ``val``, ``valid``, ``validation``; in any case); or in
    ``root/train`` alone, or in ``root``: then a part of each class becomes the test set. Classes and files are sorted by name,
    then the examples shuffled with ``test_seed``. Every file in a class folder must be an image, whatever its name; hidden files
    and those of file managers are skipped.

    Images are decoded once: the result is kept in the folder ``decoded`` of the cache, and read again until a file changes.
    ``$FLOWCLF_DECODED_GB`` limits its size (default 4 GB; 0 for no cache), ``flowclf cache --clear`` deletes it.

    Args:
        root: the folder.
        size: height and width in pixels, one number for both or ``[H, W]``; other images are scaled and cropped as in
            :func:`read_image`.
        channels: 1 for grey, 3 for RGB.
        test_fraction: fraction of each class that becomes the test set, in (0, 1), if there is no ``test`` folder.
        test_seed: random seed for that choice; independent of a run's seed, so that all runs have the same test set.
        skip_corrupt: largest number of files, or fraction of the files below 0.5, that are skipped with a warning if they cannot be
            read as images; with more it is an error, which lists them all. 0 skips none.
        cache: keep the decoded images.

    Raises:
        UsageError: if the folder does not exist, or an argument is out of range.
        DataError: if folders beside ``train`` leave open which is the test set, there are fewer than two classes, a class has no
            images, a class folder contains a folder, the test folder has a class that the training folder lacks, or more files than
            ``skip_corrupt`` allows, or half of them, cannot be read as images.
    """
    shape = (channels, *_height_and_width(size))
    check_shape(shape, "image_folder")
    check_fraction(test_fraction, "image_folder: test_fraction")
    check_skip_corrupt(skip_corrupt, "image_folder: skip_corrupt")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UsageError(f"image_folder: root: there is no folder {folder}")
    train_folder, test_folder = _parts(folder)
    class_names = _class_names(train_folder)
    parts = [train_folder] if test_folder is None else [train_folder, test_folder]
    train, *test = _read(folder, parts, class_names, shape, skip_corrupt=skip_corrupt, cached=cache)
    if test:
        order = torch.randperm(len(test[0]), generator=generator(test_seed, "test"))
        return RawData(train, test[0].take(order), tuple(class_names))
    kept, held_out = split_by_class(train.labels, test_fraction, test_seed, class_names)
    return RawData(train.take(kept), train.take(held_out), tuple(class_names))


def labelled_images(root: str | Path, shape: Sequence[int], class_names: Sequence[str]) -> Split:
    """Read all images of a folder with one folder per class, with labels in the order of ``class_names``, in random order.

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
    (found,) = _read(folder, [folder], class_names, shape)
    return found.take(torch.randperm(len(found), generator=generator(0, "test")))


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2:
        raise UsageError(f"image_folder: size: expected one number or [height, width], found {size!r}")
    for side in sides:
        check_positive(side, "image_folder: size")
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


def _read(
    root: Path,
    parts: Sequence[Path],
    class_names: Sequence[str],
    shape: Sequence[int],
    *,
    skip_corrupt: int | float = 0,
    cached: bool = True,
) -> list[Split]:
    """Read all images below each part of a folder, ordered by class and file name."""
    files, labels, ends = [], [], []
    for part in parts:
        for path, label in _labelled_files(part, class_names):
            files.append(path)
            labels.append(label)
        ends.append(len(files))
    decoded = decode_files(root, files, shape, cached=cached)
    check_failures(decoded, files, skip_corrupt)
    sizes = [end - start - sum(start <= index < end for index in decoded.failures) for start, end in pairwise([0, *ends])]
    read = torch.tensor([label for index, label in enumerate(labels) if index not in decoded.failures])
    return [Split(*both) for both in zip(torch.split(decoded.images, sizes), torch.split(read, sizes), strict=True)]


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
