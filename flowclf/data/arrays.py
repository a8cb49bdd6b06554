"""The registered data set ``arrays``: a user's .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowclf.argument_types import NonNegativeInt, PositiveFloat, ProperFraction
from flowclf.data.conversion import Kind, raw_data_from
from flowclf.data.records import RawData
from flowclf.errors import DataError, UsageError

_WHOLE = ("images", "labels")
_TRAIN = ("train_images", "train_labels")
_TEST = ("test_images", "test_labels")
_OPTIONAL = "class_names"
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def arrays(
    *,
    path: str,
    kind: Kind | None = None,
    pixel_max: PositiveFloat | None = None,
    test_fraction: ProperFraction = 0.1,
    test_seed: NonNegativeInt = 0,
) -> RawData:
    """Read images, vectors or signals, and labels from an .npz file.

    The file has either ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, or ``images`` and
    ``labels``, part of which becomes the test set. Images are uint8, 0..255, or as ``pixel_max`` says: (N, H, W) grey, or with a
    channel axis of size 1 or 3, second or last. Vectors are floating point, (N, D), signals (N, C, L), under the same keys. Labels
    are integers (N,) that use every number from 0 to K - 1, or strings: the names of the classes, which are sorted.
    ``class_names``, (K,) strings, is optional, and decides the order of the classes. Nothing in the file is unpickled.

    Args:
        path: the .npz file.
        kind: what the arrays hold, if their type and shape leave it open: images, vectors or signals.
        pixel_max: value of white; by default 255 for uint8, 1 for floating point, and 65535 for uint16 unless all pixels are below
            4096. Other types have no default. Images are stored as uint8.
        test_fraction: fraction of each class that becomes the test set, in (0, 1), if the file has no test arrays.
        test_seed: random seed for that choice; independent of a run's seed, so that all runs have the same test set.

    Raises:
        UsageError: if the file does not exist, or the fraction is outside (0, 1).
        DataError: if the file is not an .npz, a key is missing or unknown, or an array has the wrong shape, type or range.
    """
    content = _read(Path(path).expanduser())
    found = set(content) - {_OPTIONAL}
    if found not in (set(_WHOLE), {*_TRAIN, *_TEST}):
        raise DataError(
            f"{path}: expected the keys {', '.join(_WHOLE)}, or {', '.join(_TRAIN + _TEST)}, and optionally {_OPTIONAL}; "
            f"found {', '.join(sorted(content)) or 'none'}"
        )
    train, test = (
        {f"{path}: {key}": content.get(key) for key in keys} for keys in (_WHOLE if found == set(_WHOLE) else _TRAIN, _TEST)
    )
    names = content.get(_OPTIONAL)
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(f"{path}: {_OPTIONAL}: expected strings of shape (K,), found {names.dtype} of shape {names.shape}")
    class_names = None if names is None else names.tolist()
    return raw_data_from(train, test, class_names, test_fraction=test_fraction, test_seed=test_seed, kind=kind, pixel_max=pixel_max)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise UsageError(f"arrays: path: there is no file {path}")
    try:
        # given a path, numpy does not close a file that is not an archive
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: expected an .npz archive, found a single .npy array")
            with archive:
                return {str(key): _array(archive, str(key), path) for key in archive.files}
    except _UNREADABLE as error:
        raise DataError(f"{path}: expected an .npz archive, found another file: {error}") from error


def _array(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> NDArray[Any]:
    try:
        array = archive[key]
    except _UNREADABLE as error:
        raise DataError(f"{path}: {key}: expected a plain array, found one that cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {key}: expected an array, found another kind of file")
    return array
