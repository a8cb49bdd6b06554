"""The registered data set ``mnist``: the original files, bundled with the package; see mnist/NOTICE."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flowclf.data.idx import gunzip, idx_raw_data, read_bytes
from flowclf.data.records import RawData
from flowclf.errors import ChecksumError, DataError
from flowclf.files import resource

# hashes of the uncompressed files, which do not depend on how they were compressed
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def mnist() -> RawData:
    """MNIST: 60000 training and 10000 test images of handwritten digits, (1, 28, 28); bundled, so nothing is downloaded.

    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition, 1998.

    Raises:
        ChecksumError: if a file of the installation is not the original one.
        UnreachableError: if a file of the installation is missing.

    Example:
        >>> raw = mnist()
        >>> raw.train, raw.test.labels[:5].tolist()
        (Split(60000 of shape (1, 28, 28), torch.uint8, on cpu), [7, 2, 1, 0, 4])
    """
    return read_mnist(resource("data", "mnist"))


def read_mnist(folder: Path) -> RawData:
    """Read the four gzipped IDX files in a folder, and check the SHA-256 of their uncompressed content.

    Raises:
        ChecksumError: if the content is not the original; the message has the file and both hashes.
        UnreachableError: if a file cannot be read.
    """
    return idx_raw_data(folder, _checked, tuple("0123456789"))


def _checked(file: Path) -> bytes:
    path, expected = file.with_name(f"{file.name}.gz"), _SHA256[file.name]
    compressed = read_bytes(path)
    try:
        content, problem = gunzip(compressed, str(path)), ""
    except DataError:
        content, problem = compressed, " of a file that does not decompress"
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ChecksumError(f"{path}: expected content of SHA-256 {expected}, found {found}{problem}")
    return content
