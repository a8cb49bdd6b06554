"""The registered data sets that are downloaded: FashionMNIST, CIFAR-10, CIFAR-100 and SVHN.

Sizes and SHA-256 of the original files are those of TensorFlow Datasets (``url_checksums``). CIFAR is read in its binary version,
because torchvision's is pickled.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch

from flowclf.data.idx import gunzip, idx_raw_data, read_bytes
from flowclf.data.records import RawData, Split
from flowclf.errors import ChecksumError, UnreachableError
from flowclf.files import Content, cache_folder
from flowclf.remote.downloads import ensure_file
from flowclf.remote.settings import settings

_PLACES = {
    "fashion_mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/",),
    "cifar100": ("https://www.cs.toronto.edu/~kriz/",),
    "svhn": ("https://ufldl.stanford.edu/housenumbers/",),
}
_FILES = {
    "train-images-idx3-ubyte.gz": Content(26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    "train-labels-idx1-ubyte.gz": Content(29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    "t10k-images-idx3-ubyte.gz": Content(4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    "t10k-labels-idx1-ubyte.gz": Content(5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    "cifar-10-binary.tar.gz": Content(170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    "cifar-100-binary.tar.gz": Content(168513733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
    "train_32x32.mat": Content(182040794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    "test_32x32.mat": Content(64275384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
}
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def fashion_mnist(*, root: str | None = None) -> RawData:
    """FashionMNIST, in ``root/FashionMNIST/raw``: 60000 training and 10000 test images of clothes, (1, 28, 28).

    Unpacked files are read as they are.

    Source: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms, 2017.

    Args:
        root: folder of the files, ``datasets`` in the cache folder if None. Missing files are downloaded.

    Raises:
        ChecksumError: if a download is not the expected file.
        UnreachableError: if a file is missing and cannot be downloaded; the message says how to place it by hand.
        DataError: if an unpacked file is not a valid IDX file.
    """

    def content(file: Path) -> bytes:
        archive = file.with_name(f"{file.name}.gz")
        # torchvision unpacks in place; unpacked files have no known hash, so an archive takes precedence
        if not archive.is_file() and file.is_file():
            return read_bytes(file)
        return gunzip(read_bytes(_ensured("fashion_mnist", archive)), str(archive))

    return idx_raw_data(_folder(root) / "FashionMNIST" / "raw", content, _CLOTHES)


def cifar10(*, root: str | None = None) -> RawData:
    """CIFAR-10, from ``root/cifar-10-binary.tar.gz``: 50000 training and 10000 test images, (3, 32, 32).

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.

    Args:
        root: folder of the file, ``datasets`` in the cache folder if None. A missing file is downloaded.

    Raises:
        ChecksumError: if a download is not the expected file.
        UnreachableError: if the file is missing and cannot be downloaded; the message says how to place it by hand.
    """
    train = [f"data_batch_{number}.bin" for number in range(1, 6)]
    return _cifar("cifar10", _folder(root) / "cifar-10-binary.tar.gz", train, "test_batch.bin", "batches.meta.txt", label_bytes=1)


def cifar100(*, root: str | None = None) -> RawData:
    """CIFAR-100 with its fine labels, from ``root/cifar-100-binary.tar.gz``: 50000 training and 10000 test images, (3, 32, 32).

    Source and errors are those of :func:`cifar10`.

    Args:
        root: folder of the file, ``datasets`` in the cache folder if None. A missing file is downloaded.
    """
    archive = _folder(root) / "cifar-100-binary.tar.gz"
    return _cifar("cifar100", archive, ["train.bin"], "test.bin", "fine_label_names.txt", label_bytes=2)


def svhn(*, root: str | None = None) -> RawData:
    """SVHN, the street view house numbers, in ``root``: 73257 training and 26032 test images of digits, (3, 32, 32).

    Source: Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu and A. Y. Ng, Reading digits in natural images with
    unsupervised feature learning, 2011. Errors are those of :func:`cifar10`.

    Args:
        root: folder of the files, ``datasets`` in the cache folder if None. Missing files are downloaded.
    """
    from scipy.io import loadmat  # comes with FrEIA

    def split(part: str) -> Split:
        content = loadmat(_ensured("svhn", _folder(root) / f"{part}_32x32.mat"))
        images = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1))
        # the digit 0 is class 10 in the file
        return Split(torch.from_numpy(images), torch.from_numpy(content["y"].ravel().astype(np.int64) % 10))

    return RawData(split("train"), split("test"), tuple("0123456789"))


def _cifar(name: str, archive: Path, train: list[str], test: str, names: str, label_bytes: int) -> RawData:
    # a row of a file holds the labels, the finest last, then the pixels of three channels
    with tarfile.open(_ensured(name, archive)) as tar:
        files = {Path(member.name).name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}

    def split(*parts: str) -> Split:
        rows = np.frombuffer(b"".join(files[part] for part in parts), np.uint8).reshape(-1, label_bytes + 3072)
        images = np.ascontiguousarray(rows[:, label_bytes:]).reshape(-1, 3, 32, 32)
        return Split(torch.from_numpy(images), torch.from_numpy(rows[:, label_bytes - 1].astype(np.int64)))

    return RawData(split(*train), split(test), tuple(files[names].decode().split()))


def _folder(root: str | None) -> Path:
    return cache_folder() / "datasets" if root is None else Path(root).expanduser()


def _ensured(name: str, path: Path) -> Path:
    """The path of a file, which is downloaded unless it is there and right."""
    try:
        urls = [place + path.name for place in _PLACES[name]]
        what = f"data set '{name}': {path} is missing or not the expected file"
        ensure_file(path, _FILES[path.name], urls, settings({}), what)
    except (ChecksumError, UnreachableError) as error:
        raise type(error)(f"{error}; where there is no network, put {path.name} into {path.parent} by hand") from error
    return path
