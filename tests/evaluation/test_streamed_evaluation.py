"""Evaluations on images that are decoded as they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_limited_evaluation import Messages
from tiny import write_images

import flowclf
from flowclf.classifier import InvertibleClassifier
from flowclf.data import DataSet
from flowclf.evaluation import MetricContext, evaluate
from flowclf.evaluation import context as evaluation_context
from flowclf.evaluation.draws import nuisance_draws


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    return write_images(tmp_path / "images", 60, "abc", side=6)


def load(root: Path, **arguments: Any) -> DataSet:
    settings = {"size": 6, "validation": 30, "test_fraction": 0.3, "workers": 0, "memory_gb": 0.0, "augment": {"shift": 1}}
    return flowclf.data.load("image_folder", root=str(root), **settings | arguments)


def classifier() -> InvertibleClassifier:
    torch.manual_seed(0)
    nodes = ["squeeze", "invertible_conv1x1", {"affine_coupling": {"subnet": {"conv": {"width": 8}}}}, "split_head"]
    return flowclf.build_classifier((1, 6, 6), nodes, classes=3)


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if not key.startswith("seconds")}


@pytest.mark.parametrize("workers", [0, 1])
def test_results_are_those_of_images_in_memory(root: Path, workers: int) -> None:
    found = evaluate(classifier(), load(root, workers=workers))
    assert without_seconds(found) == without_seconds(evaluate(classifier(), load(root, memory_gb=1.0)))


@pytest.mark.filterwarnings("ignore:.*is skipped")
def test_results_are_those_without_what_cannot_be_read(root: Path) -> None:
    data = load(root, skip_corrupt=0.3)
    for path in sorted(root.glob("*/*.png"))[::7]:
        path.write_bytes(path.read_bytes()[:50])
    rest = [split.loaded() for split in (data.train, data.validation, data.test)]
    assert all(len(left) < len(split) for left, split in zip(rest, (data.train, data.validation, data.test), strict=True))
    expected = DataSet(data.name, data.class_names, *rest, augment=data.augment)
    found = evaluate(classifier(), data)
    assert without_seconds(found) == without_seconds(evaluate(classifier(), expected))
    draws = [nuisance_draws(MetricContext(classifier(), one, protocol="full")) for one in (data, expected)]
    assert len(draws[0]) == len(draws[1]) > 1
    assert torch.equal(draws[0][1], draws[1][1])


def test_what_does_not_fit_is_left_out_and_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nuisances of a third of the images.
    monkeypatch.setattr(evaluation_context, "_ENCODED_BYTES", 60 * 36 * 4)
    messages = Messages()
    results = evaluate(classifier(), load(root), progress=messages)
    assert (results["evaluation.limit"], results["evaluation.limit_of"], results["test.examples"]) == (18, 54, 18)
    assert results["train.examples"] == 32
    (line,) = (line for line in messages.lines if line.startswith("limited evaluation"))
    assert line.endswith("; the nuisances of more would not fit in memory")
    assert "evaluation.limit" not in evaluate(classifier(), load(root, memory_gb=1.0))
