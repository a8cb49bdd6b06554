"""Files: hashes, writes that are whole or not at all, the cache folder, resources."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from flowclf.errors import ChecksumError, UnreachableError
from flowclf.files import atomic_write, cache_folder, check_sha256, resource, sha256, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    file = tmp_path / "file"
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert sha256(file) == digest
    check_sha256(file, digest.upper())
    with pytest.raises(ChecksumError) as caught:
        check_sha256(file, "0" * 64)
    assert all(word in str(caught.value) for word in (str(file), "0" * 64, digest))


def test_what_cannot_be_read_cannot_be_hashed(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UnreachableError, match=str(path)):
            sha256(path)


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "file.txt"
    write_text(file, "grün")
    write_text(file, "größer")
    assert file.read_bytes() == "größer".encode()
    write_bytes(file, b"\x00\xff")
    assert file.read_bytes() == b"\x00\xff"
    assert names(file.parent) == ["file.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_text(file, "old")

    def fail() -> None:
        with atomic_write(file) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_readers_see_the_old_file_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_text(file, "old")
    with atomic_write(file) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert file.read_text() == "old"
    assert file.read_text() == "new"


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_json_has_neither_nan_nor_infinity(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_json(file, {"a": [1, 2.5, None, "ü"]})
    assert json.loads(file.read_text()) == {"a": [1, 2.5, None, "ü"]}
    assert file.read_text().endswith("}\n")
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(file, {"a": number})
    assert json.loads(file.read_text()) == {"a": [1, 2.5, None, "ü"]}


def test_the_cache_folder_is_read_when_asked_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("FLOWCLF_CACHE")
    assert cache_folder().name == "flowclf"


def test_resources_travel_with_the_package() -> None:
    assert resource("data", "mnist").is_dir()
    with pytest.raises(UnreachableError, match="data/mnist/nothing"):
        resource("data", "mnist", "nothing")
