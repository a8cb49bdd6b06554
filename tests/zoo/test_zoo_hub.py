"""The Hub, with a stand-in for its library: what is pushed is a zoo, and what is pulled is checked."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from servers import flipped
from zoo_cases import FILES, NAME, write_zoo

from flowclf import zoo
from flowclf.errors import ChecksumError, UnreachableError, UsageError
from flowclf.zoo import hub


class Repository:
    """Files by path, as a Hub repository holds them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def library(self) -> types.ModuleType:
        module = types.ModuleType("huggingface_hub")
        module.HfApi = lambda token=None: self  # type: ignore[attr-defined]
        module.CommitOperationAdd = lambda path_in_repo, path_or_fileobj: (path_in_repo, path_or_fileobj)  # type: ignore[attr-defined]
        module.hf_hub_download = self.download  # type: ignore[attr-defined]
        return module

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        if self.error:
            raise self.error
        self.calls.append(("create", repository, private, exist_ok))

    def create_commit(self, repository: str, operations: Any, commit_message: str) -> Any:
        for path, content in operations:
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else Path(content).read_bytes())
        self.calls.append(("commit", repository, commit_message))
        return types.SimpleNamespace(commit_url="there")

    def download(self, repository: str, path: str, *, revision: str | None, token: str | None) -> str:
        self.calls.append(("download", repository, path, revision, token))
        if not (self.folder / path).is_file():
            raise FileNotFoundError(path)
        return str(self.folder / path)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    stand_in = Repository(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in.library())
    return stand_in


def test_there_and_back(repository: Repository, zoo_folder: Path, tmp_path: Path) -> None:
    assert hub.push("me/zoo", index=zoo_folder, private=True) == "there"
    assert repository.calls == [("create", "me/zoo", True, True), ("commit", "me/zoo", "Models: tiny")]
    # A repository is a zoo like any other folder.
    assert zoo.load(NAME, index=repository.folder).classes == 4
    folder = hub.pull("me/zoo", tmp_path / "pulled", revision="v1", token="word")
    assert repository.calls[-1] == ("download", "me/zoo", f"{NAME}/{FILES[-1]}", "v1", "word")
    assert zoo.list(index=folder) == zoo.list(index=zoo_folder)
    assert zoo.download(NAME, index=folder) == folder / NAME


def test_some_models_of_several(repository: Repository, tmp_path: Path) -> None:
    document = write_zoo(tmp_path / "zoo", "one")
    document["models"] += write_zoo(tmp_path / "zoo", "two")["models"]
    (tmp_path / "zoo" / "index.json").write_text(json.dumps(document))
    hub.push("me/zoo", index=tmp_path / "zoo")
    folder = hub.pull("me/zoo", tmp_path / "pulled", ["two"])
    assert [entry.name for entry in zoo.list(index=folder)] == ["two"]
    hub.push("me/zoo", ["one"], index=tmp_path / "zoo")
    assert [entry.name for entry in zoo.list(index=repository.folder)] == ["one"]
    with pytest.raises(UsageError, match="there is no model 'three'"):
        hub.pull("me/zoo", tmp_path / "other", ["three"])


def test_a_file_that_is_wrong_is_not_taken(repository: Repository, zoo_folder: Path, tmp_path: Path) -> None:
    hub.push("me/zoo", index=zoo_folder)
    weights = repository.folder / NAME / "model.safetensors"
    weights.write_bytes(flipped(99)(weights.read_bytes()))
    with pytest.raises(ChecksumError, match=r"tiny/model\.safetensors from the repository me/zoo: .*expected SHA-256 .* found"):
        hub.pull("me/zoo", tmp_path / "pulled")
    assert not (tmp_path / "pulled" / NAME / "model.safetensors").exists()
    assert not (tmp_path / "pulled" / "index.json").exists()
    weights.unlink()
    with pytest.raises(UnreachableError, match=r"tiny/model\.safetensors cannot be downloaded from the repository me/zoo"):
        hub.pull("me/zoo", tmp_path / "another")


def test_what_is_wrong_here_is_not_pushed(repository: Repository, tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo")
    (tmp_path / "zoo" / NAME / "README.md").write_text("changed")
    with pytest.raises(ChecksumError):
        hub.push("me/zoo", index=tmp_path / "zoo")
    assert repository.calls == []


def test_errors(repository: Repository, zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").touch()
    with pytest.raises(UsageError, match="expected a new or empty folder"):
        hub.pull("me/zoo", tmp_path / "mine")
    repository.error = RuntimeError("no such user")
    with pytest.raises(UnreachableError, match="me/zoo cannot be written: no such user"):
        hub.push("me/zoo", index=zoo_folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"needs the extra 'hub'"):
        hub.push("me/zoo", index=zoo_folder)
