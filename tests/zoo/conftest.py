"""Zoos for tests: no cache, configuration or setting of the user's, no long pauses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import zoo_cases


@pytest.fixture(autouse=True)
def _isolated(no_settings: None) -> None:
    """No test of a zoo meets a setting of the user's."""


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with the model ``tiny``; not to be changed."""
    folder = tmp_path_factory.mktemp("zoo")
    zoo_cases.write_zoo(folder)
    return folder


@pytest.fixture(scope="module")
def module_server(zoo_folder: Path) -> Iterator[servers.Server]:
    with servers.serving(zoo_folder) as server:
        yield server


@pytest.fixture
def server(module_server: servers.Server) -> Iterator[servers.Server]:
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
