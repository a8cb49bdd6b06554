"""Trainings on images that are decoded as they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_images

import flowclf
from flowclf.errors import DataError
from flowclf.losses import CrossEntropy
from flowclf.training import Trainer


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    return write_images(tmp_path / "images", 100, side=6)


def make_trainer(root: Path, **arguments: Any) -> Trainer:
    settings = {"size": 6, "validation": 30, "batch_size": 32, "memory_gb": 0.0, "workers": 0, "augment": {"shift": 1}}
    data = flowclf.data.load("image_folder", root=str(root), **settings | arguments)
    torch.manual_seed(0)
    nodes = ["squeeze", "actnorm", {"affine_coupling": {"subnet": {"conv": {"width": 8}}}}, "split_head"]
    classifier = flowclf.build_classifier((1, 6, 6), nodes, classes=2)
    return Trainer(classifier, CrossEntropy(), data, {"epochs": 2, "precision": "fp32"})


def outcome(trainer: Trainer) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
    rows = [{key: value for key, value in row.items() if key != "seconds.train"} for row in trainer.run()]
    return rows, [value.clone() for value in trainer.classifier.state_dict().values()]


def assert_same(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert all(torch.equal(left, right) for left, right in zip(one[1], other[1], strict=True))


def test_a_training_is_the_one_on_images_in_memory(root: Path) -> None:
    assert_same(outcome(make_trainer(root, workers=2)), outcome(make_trainer(root, memory_gb=1.0)))


def spoil(root: Path, every: int) -> None:
    for path in sorted(root.glob("*/*.png"))[::every]:
        path.write_bytes(path.read_bytes()[:50])


@pytest.mark.filterwarnings("ignore:.*is skipped")
def test_a_resumed_training_is_the_same_with_other_workers_and_corrupt_files(root: Path) -> None:
    spoil(root, 20)
    arguments: dict[str, Any] = {"skip_corrupt": 0.1, "augment": {"shift": 1, "resized_crop": 0.5, "color": {"contrast": 0.2}}}
    whole = outcome(make_trainer(root, **arguments))
    stopped = make_trainer(root, workers=2, **arguments)
    assert stopped.total_steps == 10
    stopped.run(until=7)
    resumed = make_trainer(root, workers=1, **arguments)
    resumed.load_state_dict(stopped.state_dict())
    assert_same(whole, outcome(resumed))


@pytest.mark.filterwarnings("ignore:.*is skipped")
def test_too_many_corrupt_files_end_a_training(root: Path) -> None:
    spoil(root, 2)
    with pytest.raises(DataError, match="skip_corrupt allows 2 of the 200; repair or remove them"):
        make_trainer(root, workers=1)
