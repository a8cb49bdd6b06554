"""The registered data sets that torchvision knows: MNIST, FashionMNIST, CIFAR10, CIFAR100 and SVHN.

torchvision says where the files are, what their checksums are and, for CIFAR and SVHN, how they are read. The downloads
are pooch's: to a temporary file, which is checked and then moved, so that a part of a file never counts as the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowclf.data.idx import gunzip, idx_split, read_bytes
from flowclf.data.records import RawData, Split
from flowclf.data.torchvision_compat import import_torchvision
from flowclf.errors import DataError, UnreachableError
from flowclf.files import cache_folder

__all__ = ["cifar10", "cifar100", "fashion_mnist", "svhn", "torchvision_mnist"]


def torchvision_mnist(*, root: str | None = None) -> RawData:
    """MNIST as torchvision keeps it, in ``root/MNIST/raw``: 60000 training and 10000 test images, (1, 28, 28).

    Args:
        root: folder of torchvision's data sets, ``datasets`` in the cache folder if None. What is missing is
            downloaded.

    Raises:
        UnreachableError: files that are missing and cannot be downloaded; the message says how to place them by hand.
        DataError: a file that does not hold what it should.
    """
    return _mnist_like("torchvision_mnist", "MNIST", root, [str(digit) for digit in range(10)])


def fashion_mnist(*, root: str | None = None) -> RawData:
    """FashionMNIST, in ``root/FashionMNIST/raw``: 60000 training and 10000 test images of clothes, (1, 28, 28).

    Source: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms, 2017.

    Args:
        root: folder of torchvision's data sets, ``datasets`` in the cache folder if None. What is missing is
            downloaded.

    Raises:
        UnreachableError: files that are missing and cannot be downloaded; the message says how to place them by hand.
        DataError: a file that does not hold what it should.
    """
    return _mnist_like("fashion_mnist", "FashionMNIST", root, None)


def cifar10(*, root: str | None = None) -> RawData:
    """CIFAR-10, in ``root/cifar-10-batches-py``: 50000 training and 10000 test images, (3, 32, 32).

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009. The files are pickles; they are
    read
    only if their checksums are those that torchvision knows.

    Args:
        root: folder of torchvision's data sets, ``datasets`` in the cache folder if None. What is missing is
            downloaded.

    Raises:
        UnreachableError: files that are missing and cannot be downloaded; the message says how to place them by hand.
        DataError: a file that does not hold what it should.
    """
    return _cifar("cifar10", "CIFAR10", root)


def cifar100(*, root: str | None = None) -> RawData:
    """CIFAR-100 with its fine labels, in ``root/cifar-100-python``: 50000 training and 10000 test images, (3, 32, 32).

    Source and reading as for :func:`cifar10`.

    Args:
        root: folder of torchvision's data sets, ``datasets`` in the cache folder if None. What is missing is
            downloaded.

    Raises:
        UnreachableError: files that are missing and cannot be downloaded; the message says how to place them by hand.
        DataError: a file that does not hold what it should.
    """
    return _cifar("cifar100", "CIFAR100", root)


def svhn(*, root: str | None = None) -> RawData:
    """SVHN, the street view house numbers, in ``root``: 73257 training and 26032 test images of digits, (3, 32, 32).

    Source: Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu and A. Y. Ng, Reading digits in natural images with
    unsupervised feature learning, 2011.

    Args:
        root: folder of torchvision's data sets, ``datasets`` in the cache folder if None. What is missing is
            downloaded.

    Raises:
        UnreachableError: files that are missing and cannot be downloaded; the message says how to place them by hand.
        DataError: a file that does not hold what it should.
    """
    kind = import_torchvision().datasets.SVHN
    folder = _folder(root)
    splits = []
    for part in ("train", "test"):
        url, file, md5 = kind.split_list[part]
        _provide("svhn", [url], folder / file, md5)
        data = _read("svhn", folder, partial(kind, str(folder), split=part))
        splits.append(Split(torch.from_numpy(np.array(data.data, order="C")), torch.from_numpy(np.array(data.labels))))
    return RawData(splits[0], splits[1], tuple(str(digit) for digit in range(10)))


def _mnist_like(name: str, kind_name: str, root: str | None, class_names: Sequence[str] | None) -> RawData:
    kind = getattr(import_torchvision().datasets, kind_name)
    folder = _folder(root) / kind_name / "raw"
    md5s = dict(kind.resources)

    def content(file: str) -> bytes:
        # torchvision takes an unpacked file on trust, and unpacks in place; so the archive counts where there is one
        archive, unpacked = folder / f"{file}.gz", folder / file
        if not archive.is_file() and unpacked.is_file():
            return read_bytes(unpacked)
        _provide(name, [mirror + archive.name for mirror in kind.mirrors], archive, md5s[archive.name])
        return gunzip(read_bytes(archive), str(archive))

    def split(part: str) -> Split:
        images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        return idx_split(content(images), content(labels), str(folder / images), str(folder / labels))

    return RawData(split("train"), split("t10k"), tuple(class_names or kind.classes))


def _cifar(name: str, kind_name: str, root: str | None) -> RawData:
    kind = getattr(import_torchvision().datasets, kind_name)
    folder = _folder(root)
    tools = import_torchvision().datasets.utils
    files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    if not all(tools.check_integrity(str(folder / kind.base_folder / file), md5) for file, md5 in files):
        archive = folder / kind.filename
        _provide(name, [kind.url], archive, kind.tgz_md5, unpacked=kind.base_folder)
        _read(name, folder, partial(tools.extract_archive, str(archive), str(folder)))
    train = _read(name, folder, partial(kind, str(folder), train=True))
    test = _read(name, folder, partial(kind, str(folder), train=False))
    splits = [
        Split(torch.from_numpy(np.array(data.data.transpose(0, 3, 1, 2), order="C")), torch.tensor(data.targets))
        for data in (train, test)
    ]
    return RawData(splits[0], splits[1], tuple(train.classes))


def _folder(root: str | None) -> Path:
    return cache_folder() / "datasets" if root is None else Path(root).expanduser()


def _read(name: str, folder: Path, build: Callable[[], Any]) -> Any:
    """Let torchvision read its files: it checks the checksum of each before it does."""
    try:
        with warnings.catch_warnings():
            # the pickles of CIFAR are of 2009 and use what numpy has since deprecated
            warnings.simplefilter("ignore")
            return build()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"data set '{name}': the files in {folder} cannot be read: {error}") from error


def _provide(name: str, urls: Sequence[str], path: Path, md5: str, unpacked: str | None = None) -> None:
    """Download a file from the first address that works, unless it is there already with the right checksum."""
    import pooch

    if import_torchvision().datasets.utils.check_integrity(str(path), md5):
        return
    failures = []
    for url in urls:
        try:
            pooch.retrieve(url, known_hash=f"md5:{md5}", fname=path.name, path=path.parent)
        except (OSError, ValueError) as error:
            failures.append(f"{url} ({_cause(error)})")
        else:
            return
    by_hand = f"put {path.name} into {path.parent}" + (f", or what it unpacks to, {unpacked}" if unpacked else "")
    raise UnreachableError(
        f"data set '{name}': {path} is missing or not the expected file (MD5 {md5}), and cannot be downloaded from "
        f"{' or '.join(failures)}; where there is no network, {by_hand} by hand"
    )


def _cause(error: BaseException) -> str:
    """What the system said, without the layers of the client, where it said anything."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__context__
    return str(error)
