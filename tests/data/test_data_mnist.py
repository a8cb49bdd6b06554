"""Bundled MNIST and the IDX reader: the real files, checked at every load; strict parsing."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flowclf.data
from flowclf.data.idx import gunzip, idx_split, read_idx
from flowclf.data.mnist_bundled import read_mnist
from flowclf.errors import ChecksumError, DataError, UnreachableError
from flowclf.files import resource

FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def idx(shape: tuple[int, ...], content: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundled files, to be spoilt."""
    return Path(shutil.copytree(resource("data", "mnist"), tmp_path / "mnist"))


def test_mnist_is_the_real_one_and_fast() -> None:
    start = time.process_time()
    raw = flowclf.data.mnist()
    assert time.process_time() - start < 1.0
    assert raw.train.inputs.shape == (60000, 1, 28, 28)
    assert raw.test.inputs.shape == (10000, 1, 28, 28)
    assert raw.train.inputs.dtype == torch.uint8
    assert raw.train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert raw.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert raw.train.inputs.double().mean().item() / 255 == pytest.approx(0.1306604762738429, abs=1e-12)
    assert raw.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert raw.class_names == tuple("0123456789")


def test_mnist_by_name() -> None:
    data = flowclf.data.load("mnist", augment={"shift": 2}, train_limit=300)
    assert (len(data.train), len(data.validation), len(data.test)) == (300, 5000, 10000)
    (batch, *_) = data.train_batches(0)
    assert batch.inputs.shape == (128, 1, 28, 28)


def test_the_licence_travels_with_the_data() -> None:
    notice = resource("data", "mnist", "NOTICE").read_text()
    assert "CC BY-SA 3.0" in notice
    assert "Yann LeCun and Corinna Cortes" in notice


def test_a_changed_pixel_is_a_checksum_error(bundle: Path) -> None:
    path = bundle / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    expected = hashlib.sha256(content).hexdigest()
    content[5000] ^= 1
    path.write_bytes(gzip.compress(content, compresslevel=1))
    with pytest.raises(ChecksumError) as caught:
        read_mnist(bundle)
    message = str(caught.value)
    assert str(path) in message
    assert expected in message
    assert hashlib.sha256(content).hexdigest() in message


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text"])
def test_a_damaged_file_is_a_checksum_error(bundle: Path, damage: str) -> None:
    path = bundle / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "truncated": content[:middle],
        "empty": b"",
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "text": b"not here",
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(ChecksumError, match="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5") as caught:
        read_mnist(bundle)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_swapped_files_are_checksum_errors(bundle: Path, name: str) -> None:
    other = FILES[(FILES.index(name) + 2) % 4]
    shutil.copy(resource("data", "mnist") / f"{other}.gz", bundle / f"{name}.gz")
    with pytest.raises(ChecksumError, match=f"{name}.gz: expected"):
        read_mnist(bundle)


def test_a_missing_file_is_unreachable(bundle: Path) -> None:
    (bundle / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UnreachableError, match=r"cannot read .*t10k-labels-idx1-ubyte.gz"):
        read_mnist(bundle)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple), st.data())
def test_idx_round_trip(shape: tuple[int, ...], data: st.DataObject) -> None:
    size = torch.Size(shape).numel()
    content = data.draw(st.binary(min_size=size, max_size=size))
    parsed = read_idx(idx(shape, content), "file", dimensions=len(shape))
    assert parsed.shape == shape
    assert bytes(parsed.flatten().tolist()) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the IDX magic number 00000803, found an empty file"),
        (idx((1, 1), b"a"), "expected the IDX magic number 00000803, found 00000802"),
        (b"\0\0\x0d\x03" + bytes(12), "found 00000d03"),
        (idx((1, 2, 2), b"")[:9], "expected an IDX header of 16 bytes, found 9 bytes"),
        (idx((1, 2, 2), b"abc"), "expected 20 bytes for shape (1, 2, 2), found 19"),
        (idx((1, 2, 2), b"abcde"), "expected 20 bytes for shape (1, 2, 2), found 21"),
        (idx((2**32 - 1,) * 3, b"abcd"), "for shape (4294967295, 4294967295, 4294967295), found 20"),
    ],
)
def test_idx_files_that_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match="digits: expected") as caught:
        read_idx(content, "digits", dimensions=3)
    assert message in str(caught.value)


def test_labels_must_match_images() -> None:
    with pytest.raises(DataError, match="numbers: expected 2 labels, one per image, found 3"):
        idx_split(idx((2, 1, 1), b"ab"), idx((3,), b"\0\0\0"), "pictures", "numbers")


def test_gunzip_names_the_file() -> None:
    with pytest.raises(DataError, match="some file: expected a gzip file"):
        gunzip(b"abc", "some file")
