"""The registered data set ``image_folder``, a user's images in one folder per class, and the reader of one image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from flowclf.argument_types import NonNegativeInt, PositiveInt, ProperFraction
from flowclf.data.conversion import check_fraction, check_positive, split_by_class
from flowclf.data.records import RawData, Split
from flowclf.data.seeding import generator
from flowclf.errors import DataError, UsageError

# file managers create these in folders of images
_NOT_IMAGES = frozenset({"thumbs.db", "desktop.ini"})


def image_folder(
    *,
    root: str,
    size: PositiveInt = 28,
    channels: Literal[1, 3] = 1,
    test_fraction: ProperFraction = 0.1,
    test_seed: NonNegativeInt = 0,
) -> RawData:
    """Read a folder of images with one folder per class, named after the class.

    The class folders are in ``root/train`` and ``root/test`` (or ``val``, ``valid``, ``validation``; in any case); or in
    ``root/train`` alone, or in ``root``: then a part of each class becomes the test set. Classes and files are sorted by name,
    then the examples shuffled with ``test_seed``. Every file in a class folder must be an image; hidden files are skipped.

    Args:
        root: the folder.
        size: height and width in pixels; other images are scaled and cropped as in :func:`read_image`.
        channels: 1 for grey, 3 for RGB.
        test_fraction: fraction of each class that becomes the test set, in (0, 1), if there is no ``test`` folder.
        test_seed: random seed for that choice; independent of a run's seed, so that all runs have the same test set.

    Raises:
        UsageError: if the folder does not exist, or an argument is out of range.
        DataError: if folders beside ``train`` leave open which is the test set, there are fewer than two classes, a class has no
            images, a class folder contains a folder, the test folder has a class that the training folder lacks, or a file cannot
            be read as an image.
    """
    check_positive(size, "image_folder: size")
    check_fraction(test_fraction, "image_folder: test_fraction")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UsageError(f"image_folder: root: there is no folder {folder}")
    train_folder, test_folder = _parts(folder)
    class_names = [path.name for path in _class_folders(train_folder)]
    for name in class_names:
        if not name.isprintable():
            raise DataError(f"{train_folder}: expected names of classes in printable UTF-8, found {name!r}")
    if len(class_names) < 2:
        found = ", ".join(class_names) or "none"
        raise DataError(f"{train_folder}: expected at least 2 folders, one per class, found {found}")
    shape = (channels, size, size)
    train = _read_split(train_folder, class_names, shape)
    if test_folder is not None:
        test = _read_split(test_folder, class_names, shape)
        order = torch.randperm(len(test), generator=generator(test_seed, "test"))
        return RawData(train, test.take(order), tuple(class_names))
    kept, held_out = split_by_class(train.labels, test_fraction, test_seed)
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
    channels, height, width = shape
    found = _read_split(folder, list(class_names), (channels, height, width))
    return found.take(torch.randperm(len(found), generator=generator(0, "test")))


def read_image(path: str | Path, shape: Sequence[int]) -> Tensor:
    """Read one image, in any format that Pillow reads, as uint8 (C, H, W), 0..255.

    The image is rotated according to its EXIF orientation, put on white where it is transparent, scaled (bicubic) to
    cover the target and cropped at the centre; an image of the target size is not changed. The first frame of an
    animation is used; 16-bit grey is reduced to its upper 8 bits.

    Args:
        path: path of the file.
        shape: (C, H, W), with C = 1 for grey or 3 for RGB.

    Raises:
        UsageError: if the file does not exist, or the shape is not that of a grey or RGB image.
        DataError: if the file is not a complete image, has channels of other than 8 or 16 bits, or is so large that
            Pillow considers it a decompression bomb.
    """
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise UsageError(f"read_image: expected a shape (1, H, W) or (3, H, W), found {tuple(shape)}")
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    channels, height, width = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                pixels = ImageOps.fit(_with_channels(upright, channels), (width, height))
    except Exception as error:  # Pillow's readers raise exceptions of any type on malformed files
        raise DataError(f"{path}: expected an image, found a file that cannot be read as one: {error}") from error
    return torch.from_numpy(np.array(pixels).reshape(height, width, channels)).permute(2, 0, 1).contiguous()


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I;16"):
        values, transparent = np.asarray(image).astype(np.uint16), image.info.get("transparency")
        if values.max(initial=0) < 2**12:
            raise ValueError(f"16-bit pixels up to {values.max(initial=0)} only, whose range is unknown; rescale them to 0..65535")
        grey = (values >> 8).astype(np.uint8)
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        image = Image.fromarray(grey)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, 32 bits each, have no known range; expected 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _visible(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be read: {error.strerror}") from error
    return [folder / name for name in names if not name.startswith(".") and name.lower() not in _NOT_IMAGES]


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
    return [path for path in _visible(folder) if path.is_dir()]


def _read_split(folder: Path, class_names: list[str], shape: tuple[int, int, int]) -> Split:
    """Read all images below a folder, ordered by class and file name; class folders may be missing, but not unknown."""
    files: list[Path] = []
    labels: list[int] = []
    for class_folder in _class_folders(folder):
        if class_folder.name not in class_names:
            raise DataError(f"{class_folder}: expected a class of the training folder ({', '.join(class_names)})")
        members = _visible(class_folder)
        if not members:
            raise DataError(f"{class_folder}: expected at least one image of class '{class_folder.name}', found none")
        for path in members:
            if path.is_dir():
                raise DataError(f"{path}: expected only images in a class folder, found a folder")
        files.extend(members)
        labels.extend([class_names.index(class_folder.name)] * len(members))
    if not files:
        raise DataError(f"{folder}: expected folders of images, found none")
    inputs = torch.empty(len(files), *shape, dtype=torch.uint8)
    for position, path in enumerate(files):
        inputs[position] = read_image(path, shape)
    return Split(inputs, torch.tensor(labels))
