"""Zoos for tests: no cache, configuration or setting of the user's, no long pauses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo_cases

from flowclf.zoo import downloads


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ZOO", "ZOO_URL", "ZOO_MIRRORS", "OFFLINE", "TIMEOUT"):
        monkeypatch.delenv(f"FLOWCLF_{variable}", raising=False)
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.toml").write_text("")
    monkeypatch.setenv("FLOWCLF_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setattr(downloads, "_FIRST_PAUSE", 0.001)


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with the model ``tiny``; not to be changed."""
    folder = tmp_path_factory.mktemp("zoo")
    zoo_cases.write_zoo(folder)
    return folder


@pytest.fixture(scope="module")
def module_server(zoo_folder: Path) -> Iterator[zoo_cases.Server]:
    with zoo_cases.serving(zoo_folder) as server:
        yield server


@pytest.fixture
def server(module_server: zoo_cases.Server) -> Iterator[zoo_cases.Server]:
    """Serves the zoo; well-behaved at the start of each test."""
    module_server.behaviours.clear()
    module_server.requests.clear()
    yield module_server
    module_server.behaviours.clear()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    return zoo_cases.write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def document(zoo_folder: Path) -> Any:
    """The index of the zoo, to be changed as one likes."""
    import json

    return json.loads((zoo_folder / "index.json").read_text())
