"""Shared by all tests: one thread, fixed seeds, registries left as they were, and tiny classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import tiny
import torch

from flowclf import InvertibleClassifier, registry
from flowclf.remote import downloads

# Other packages, installed by the tests that use them.
collect_ignore = ["plugins"]

torch.set_num_threads(1)
# Otherwise a warning of torch's own is an error in the first test that meets it, and unseen in all others.
torch.set_warn_always(True)
hypothesis.settings.register_profile("flowclf", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("flowclf")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_decoded_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_DECODED_GB", "0")


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache, configuration or variable of the user's for downloads, and no long pauses between tries."""
    for variable in ("ZOO", "ZOO_URL", "ZOO_MIRRORS", "OFFLINE", "TIMEOUT"):
        monkeypatch.delenv(f"FLOWCLF_{variable}", raising=False)
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.toml").write_text("")
    monkeypatch.setenv("FLOWCLF_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setattr(downloads, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def scratch_registries() -> Iterator[None]:
    """What the test registers is gone after it."""
    kept = {name: dict(one._local) for name, one in registry.registries.items()}
    yield
    for name, one in registry.registries.items():
        one._local = kept[name]


@pytest.fixture
def image_classifier() -> InvertibleClassifier:
    """Four classes on (1, 8, 8), every kind of node for images in it, in eval mode."""
    return tiny.image_classifier()


@pytest.fixture
def vector_classifier() -> InvertibleClassifier:
    """Two classes on (3,), in eval mode."""
    return tiny.vector_classifier()
