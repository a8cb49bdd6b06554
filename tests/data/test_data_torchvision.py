"""torchvision's data sets: small files in their layout, a server on this machine, and no network at all."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flowclf.data
from flowclf.data import torchvision_compat, torchvision_sets
from flowclf.data.torchvision_compat import import_torchvision
from flowclf.errors import DataError, UnreachableError

NAMES = ["torchvision_mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"]
FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx_files() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    result = {}
    for part, size in (("train", 40), ("t10k", 20)):
        pixels = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        result[f"{part}-images-idx3-ubyte"] = b"\0\0\x08\x03" + struct.pack(">3I", *pixels.shape) + pixels.tobytes()
        labels = np.arange(size, dtype=np.uint8) % 10
        result[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + struct.pack(">I", size) + labels.tobytes()
    return result


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address and the folder of a web server on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/", folder
        running.shutdown()
        thread.join()


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
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("no_network")
def test_the_cache_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnreachableError) as caught:
        torchvision_sets.svhn()
    assert str(tmp_path / "cache" / "datasets" / "train_32x32.mat") in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_unpacked_files_in_torchvisions_layout(tmp_path: Path) -> None:
    raw_folder = tmp_path / "MNIST" / "raw"
    raw_folder.mkdir(parents=True)
    for name, content in idx_files().items():
        (raw_folder / name).write_bytes(content)
    data = flowclf.data.load("torchvision_mnist", root=str(tmp_path), validation=10)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 20)
    assert data.class_names == tuple("0123456789")
    images = import_torchvision().datasets.MNIST(str(tmp_path), train=False).data
    assert torch.equal(data.test.inputs[:, 0], images)
    (raw_folder / FILES[2]).write_bytes(idx_files()[FILES[2]][:-1])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: expected 15696 bytes"):
        torchvision_sets.torchvision_mnist(root=str(tmp_path))


@pytest.fixture
def small_fashion(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """FashionMNIST with small files, served on this machine; returns the folder that is served."""
    address, folder = server
    kind = import_torchvision().datasets.FashionMNIST
    resources = []
    for name, content in idx_files().items():
        packed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", md5(packed)))
    monkeypatch.setattr(kind, "mirrors", [address + "missing/", address])
    monkeypatch.setattr(kind, "resources", resources)
    return folder


def test_a_download_is_kept_and_checked(small_fashion: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets"
    first = torchvision_sets.fashion_mnist(root=str(root))
    assert first.class_names[0] == "T-shirt/top"
    assert first.train.inputs.shape == (40, 1, 28, 28)
    for path in small_fashion.iterdir():
        path.unlink()
    again = torchvision_sets.fashion_mnist(root=str(root))
    assert torch.equal(again.train.inputs, first.train.inputs)
    archive = root / "FashionMNIST" / "raw" / f"{FILES[0]}.gz"
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(UnreachableError, match=r"train-images-idx3-ubyte.gz is missing or not the expected file .*404"):
        torchvision_sets.fashion_mnist(root=str(root))


def test_a_part_of_a_download_does_not_count_as_the_file(small_fashion: Path, tmp_path: Path) -> None:
    path = small_fashion / f"{FILES[3]}.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    root = tmp_path / "sets"
    with pytest.raises(UnreachableError, match=r"t10k-labels-idx1-ubyte.gz is missing or not the expected file"):
        torchvision_sets.fashion_mnist(root=str(root))
    assert not (root / "FashionMNIST" / "raw" / path.name).exists()
    path.write_bytes(whole)
    assert len(torchvision_sets.fashion_mnist(root=str(root)).test) == 20


def cifar_files(kind: Any, fine: bool) -> dict[str, bytes]:
    """Pickles as CIFAR has them: of Python 2, with the images as rows."""
    generator = np.random.default_rng(0)
    label_key, classes = ("fine_labels", 100) if fine else ("labels", 10)
    result = {}
    for file, _ in [*kind.train_list, *kind.test_list]:
        content = {
            "data": generator.integers(0, 256, (100, 3072), dtype=np.uint8),
            label_key: [n % classes for n in range(100)],
        }
        result[file] = pickle.dumps(content, protocol=2)
    names = {kind.meta["key"]: [f"name {number}" for number in range(classes)]}
    result[kind.meta["filename"]] = pickle.dumps(names, protocol=2)
    return result


@pytest.mark.parametrize(("name", "kind_name"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar_is_downloaded_unpacked_and_read(
    name: str, kind_name: str, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = getattr(import_torchvision().datasets, kind_name)
    files = cifar_files(kind, fine=name == "cifar100")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{kind.base_folder}/{file}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    address, folder = server
    (folder / kind.filename).write_bytes(archive.getvalue())
    monkeypatch.setattr(kind, "url", address + kind.filename)
    monkeypatch.setattr(kind, "tgz_md5", md5(archive.getvalue()))
    monkeypatch.setattr(kind, "train_list", [[file, md5(files[file])] for file, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[file, md5(files[file])] for file, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(files[kind.meta["filename"]])})

    root = tmp_path / "sets"
    data = flowclf.data.load(name, root=str(root), validation=10, augment={"crop": 4, "flip": True})
    assert data.image_shape == (3, 32, 32)
    assert data.class_names[1] == "name 1"
    rows = pickle.loads(files[kind.test_list[0][0]])["data"]  # noqa: S301
    assert np.array_equal(data.test.inputs.flatten(1).numpy(), rows)
    (folder / kind.filename).unlink()
    (root / kind.filename).unlink()
    assert len(flowclf.data.load(name, root=str(root), validation=10).test) == 100
    # a pickle that is not the known one is never read
    (root / kind.base_folder / kind.test_list[0][0]).write_bytes(b"changed")
    with pytest.raises(UnreachableError, match=f"put {kind.filename} into .*, or what it unpacks to, {kind.base_folder}"):
        flowclf.data.load(name, root=str(root), validation=10)


@pytest.mark.usefixtures("no_network")
def test_svhn_from_files_placed_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat  # type: ignore[import-untyped]

    kind = import_torchvision().datasets.SVHN
    lists = {}
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 30), dtype=np.uint8)
    for part in ("train", "test"):
        url, file, _ = kind.split_list[part]
        # the digit 0 is class 10 in the file
        savemat(tmp_path / file, {"X": pixels, "y": (np.arange(30, dtype=np.uint8)[:, None] % 10) + 1})
        lists[part] = [url, file, md5((tmp_path / file).read_bytes())]
    monkeypatch.setattr(kind, "split_list", lists)
    raw = torchvision_sets.svhn(root=str(tmp_path))
    assert raw.train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert np.array_equal(raw.test.inputs.numpy(), pixels.transpose(3, 2, 0, 1))
    assert raw.class_names == tuple("0123456789")


def test_torchvision_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, flowclf.data, flowclf.data.torchvision_sets; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_operators_that_exist_are_left_alone() -> None:
    module = import_torchvision()
    assert all(hasattr(torch.ops.torchvision, name) for name in ("nms", "qnms"))
    torchvision_compat._define_missing()  # torch refuses a second definition
    assert import_torchvision() is module
