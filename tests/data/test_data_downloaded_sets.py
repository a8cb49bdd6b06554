"""The data sets that are downloaded: small files in the originals' formats, servers on this machine, and no network at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from servers import Behaviour, Server, body, flipped, redirect, serving, silent, slowly, status

import flowclf.data
from flowclf.data import downloaded_sets
from flowclf.data.torchvision_import import import_torchvision
from flowclf.errors import ChecksumError, DataError, UnreachableError
from flowclf.remote.downloads import Content

pytestmark = pytest.mark.usefixtures("no_settings")

NAMES = ["fashion_mnist", "cifar10", "cifar100", "svhn"]
FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def idx_files() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    result = {}
    for part, size in (("train", 40), ("t10k", 20)):
        pixels = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        result[f"{part}-images-idx3-ubyte"] = b"\0\0\x08\x03" + struct.pack(">3I", *pixels.shape) + pixels.tobytes()
        labels = np.arange(size, dtype=np.uint8) % 10
        result[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + struct.pack(">I", size) + labels.tobytes()
    return result


def expect(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take the small files in a folder for the originals."""
    for path in folder.iterdir():
        content = path.read_bytes()
        monkeypatch.setitem(downloaded_sets._FILES, path.name, Content(len(content), hashlib.sha256(content).hexdigest()))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine, the second place of every data set; the first does not answer."""
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as running:
        for name in NAMES:
            monkeypatch.setitem(downloaded_sets._PLACES, name, ("http://127.0.0.1:1/", running.url))
        yield running


def test_the_originals_come_by_https_and_have_a_length_and_a_hash() -> None:
    assert sorted(downloaded_sets._PLACES) == sorted(NAMES)
    assert all(
        place.startswith("https://") and place.endswith("/") for places in downloaded_sets._PLACES.values() for place in places
    )
    assert all(len(bytes.fromhex(content.sha256)) == 32 and content.size > 5000 for content in downloaded_sets._FILES.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_error_says_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        flowclf.data.load(name, root=str(tmp_path / "sets"))
    message = str(caught.value)
    assert f"data set '{name}'" in message
    assert str(tmp_path / "sets") in message
    assert "Network is unreachable" in message
    assert "by hand" in message
    assert [path for path in (tmp_path / "sets").rglob("*") if path.is_file()] == []


def test_offline_nothing_is_asked_for(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_OFFLINE", "1")
    with pytest.raises(UnreachableError, match=r"offline, and there is no file .*train_32x32\.mat; .* by hand"):
        downloaded_sets.svhn(root=str(tmp_path))
    (tmp_path / "train_32x32.mat").write_bytes(b"another")
    with pytest.raises(ChecksumError, match=r"train_32x32\.mat has changed; expected SHA-256 435e94.* found .* of 7 bytes"):
        downloaded_sets.svhn(root=str(tmp_path))
    assert server.requests == []


@pytest.mark.usefixtures("no_network")
def test_the_cache_folder_is_the_default(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        downloaded_sets.svhn()
    assert str(tmp_path / "cache" / "datasets" / "train_32x32.mat") in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_unpacked_files_in_torchvisions_layout(tmp_path: Path) -> None:
    raw_folder = tmp_path / "FashionMNIST" / "raw"
    raw_folder.mkdir(parents=True)
    for name, content in idx_files().items():
        (raw_folder / name).write_bytes(content)
    data = flowclf.data.load("fashion_mnist", root=str(tmp_path), validation=10)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 20)
    theirs = import_torchvision().datasets.FashionMNIST(str(tmp_path), train=False)
    assert data.class_names == tuple(theirs.classes)
    assert torch.equal(data.test.inputs[:, 0], theirs.data)
    (raw_folder / FILES[2]).write_bytes(idx_files()[FILES[2]][:-1])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: expected 15696 bytes"):
        downloaded_sets.fashion_mnist(root=str(tmp_path))


@pytest.fixture
def small_fashion(server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FashionMNIST with small files, served on this machine; returns the folder that is served."""
    for name, content in idx_files().items():
        (server.folder / f"{name}.gz").write_bytes(gzip.compress(content))
    expect(monkeypatch, server.folder)
    return server.folder


def test_a_download_is_kept_and_checked(small_fashion: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets"
    first = downloaded_sets.fashion_mnist(root=str(root))
    assert first.class_names[0] == "T-shirt/top"
    assert first.train.inputs.shape == (40, 1, 28, 28)
    for path in small_fashion.iterdir():
        path.unlink()
    again = downloaded_sets.fashion_mnist(root=str(root))
    assert torch.equal(again.train.inputs, first.train.inputs)
    archive = root / "FashionMNIST" / "raw" / f"{FILES[0]}.gz"
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(UnreachableError, match=r"train-images-idx3-ubyte.gz is missing or not the expected file: .*404"):
        downloaded_sets.fashion_mnist(root=str(root))


def test_a_part_of_a_download_does_not_count_as_the_file(small_fashion: Path, tmp_path: Path) -> None:
    path = small_fashion / f"{FILES[3]}.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    root = tmp_path / "sets"
    with pytest.raises(ChecksumError, match=r"t10k-labels-idx1-ubyte.gz is missing or not the expected file: .*found"):
        downloaded_sets.fashion_mnist(root=str(root))
    assert not (root / "FashionMNIST" / "raw" / path.name).exists()
    path.write_bytes(whole)
    assert len(downloaded_sets.fashion_mnist(root=str(root)).test) == 20


WRONG: dict[str, tuple[Behaviour, str]] = {
    "a bit": (body(flipped(77)), "other bytes; expected SHA-256"),
    "one byte more": (body(lambda content: content + b"\0"), "of at least"),
    "a redirection to a file": (redirect("file:///etc/hostname"), "redirected: expected https"),
    "a redirection to another server": (redirect("http://example.org/"), "redirected: expected https"),
    "silence": (silent, "no answer in time"),
    "a byte at a time": (slowly(10**4, 0.03), "too slow"),
    "an error": (status(503), "status 503"),
}


@pytest.mark.parametrize(("behaviour", "words"), WRONG.values(), ids=WRONG)
def test_downloads_are_guarded_as_those_of_the_zoo(
    behaviour: Behaviour, words: str, small_fashion: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWCLF_TIMEOUT", "0.15")
    server.behaviours[f"/{FILES[0]}.gz"] = behaviour
    started = time.monotonic()
    with pytest.raises((ChecksumError, UnreachableError), match=words) as caught:
        downloaded_sets.fashion_mnist(root=str(tmp_path / "sets"))
    assert time.monotonic() - started < 5
    assert caught.value.exit_code == 3
    assert [path for path in (tmp_path / "sets").rglob("*") if path.is_file()] == []


def cifar_archive(folder: str, train: list[str], test: str, label_bytes: int, names: str) -> tuple[bytes, dict[str, bytes]]:
    """An archive in the binary version of CIFAR, and its files."""
    generator = np.random.default_rng(0)
    classes = 10 if label_bytes == 1 else 100
    files = {}
    for file in [*train, test]:
        labels = np.stack([np.arange(100) // 5] * (label_bytes - 1) + [np.arange(100) % classes], 1).astype(np.uint8)
        files[file] = np.concatenate([labels, generator.integers(0, 256, (100, 3072), dtype=np.uint8)], 1).tobytes()
    files[names] = "".join(f"name{number}\n" for number in range(classes)).encode() + b"\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{file}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue(), files


CIFAR = {
    "cifar10": ("cifar-10-batches-bin", [f"data_batch_{n}.bin" for n in range(1, 6)], "test_batch.bin", 1, "batches.meta.txt"),
    "cifar100": ("cifar-100-binary", ["train.bin"], "test.bin", 2, "fine_label_names.txt"),
}


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_is_downloaded_and_read(name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, train, test, label_bytes, names = CIFAR[name]
    content, files = cifar_archive(folder, train, test, label_bytes, names)
    archive = f"{name.replace('cifar', 'cifar-')}-binary.tar.gz"
    (server.folder / archive).write_bytes(content)
    expect(monkeypatch, server.folder)
    root = tmp_path / "sets"
    data = flowclf.data.load(name, root=str(root), validation=10, augment={"crop": 4, "flip": True})
    assert data.image_shape == (3, 32, 32)
    assert data.class_names[1] == "name1"
    assert len(data.train) + len(data.validation) == 100 * len(train)
    rows = np.frombuffer(files[test], np.uint8).reshape(100, -1)
    assert np.array_equal(data.test.inputs.flatten(1).numpy(), rows[:, label_bytes:])
    assert data.test.labels.tolist() == [n % len(data.class_names) for n in range(100)]
    (server.folder / archive).unlink()
    assert len(flowclf.data.load(name, root=str(root), validation=10).test) == 100
    # an archive that is not the known one is never read
    (root / archive).write_bytes(b"changed")
    with pytest.raises(UnreachableError, match=f"status 404.*put {archive} into {root} by hand"):
        flowclf.data.load(name, root=str(root), validation=10)


@pytest.mark.usefixtures("no_network")
def test_svhn_from_files_placed_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "sets"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 30), dtype=np.uint8)
    for part in ("train", "test"):
        # the digit 0 is class 10 in the file
        savemat(root / f"{part}_32x32.mat", {"X": pixels, "y": (np.arange(30, dtype=np.uint8)[:, None] % 10) + 1})
    expect(monkeypatch, root)
    raw = downloaded_sets.svhn(root=str(root))
    assert raw.train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert np.array_equal(raw.test.inputs.numpy(), pixels.transpose(3, 2, 0, 1))
    assert raw.class_names == tuple("0123456789")


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, flowclf.data, flowclf.data.downloaded_sets; sys.exit(bool({'torchvision', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
