"""Memory: a description that needs more than its weights account for is rejected before anything is allocated."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import flowclf
from flowclf import checkpoint
from flowclf.checkpoint.allocation import AllocationLimit, limit_for, tensor_shapes
from flowclf.errors import CheckpointError


def test_shapes_come_from_the_header(image_classifier: Any, tmp_path: Path) -> None:
    file = flowclf.save(image_classifier, tmp_path) / checkpoint.WEIGHTS
    assert tensor_shapes(file) == {name: tuple(value.shape) for name, value in image_classifier.state_dict().items()}
    content = file.read_bytes()
    for broken in (content[:-1], content + b"\0", b"", content[:4], b"\xff" * 8 + content[8:]):
        file.write_bytes(broken)
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            tensor_shapes(file)


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.zeros(10_000),
        lambda: torch.randn(100, 100),
        lambda: torch.arange(2000),
        lambda: torch.eye(100, dtype=torch.float64),
        lambda: torch.ones(10).expand(1000, 10).clone(),
        lambda: torch.cat([torch.zeros(400)] * 10),
        lambda: torch.linalg.qr(torch.ones(20, 20)),
        lambda: torch.nn.Linear(100, 100),
        lambda: [torch.zeros(100) for _ in range(20)],
    ],
)
def test_what_exceeds_the_limit_is_refused(allocate: Callable[[], Any]) -> None:
    with pytest.raises(CheckpointError, match="it needs more than the"), AllocationLimit(4000, 1000, "it"):
        allocate()
    with AllocationLimit(10**6, 1000, "it"):
        allocate()


def test_a_long_row_of_small_operations_ends() -> None:
    with pytest.raises(CheckpointError, match="more layers"), AllocationLimit(10**6, 50, "it"):
        sum(torch.zeros(1) for _ in range(1000))


def test_views_and_changes_in_place_are_free() -> None:
    value = torch.zeros(1000)
    with AllocationLimit(0, 100, "it"):
        assert value.add_(1).view(10, 100)[0].sum_to_size(100).shape == (100,)
    with AllocationLimit(0, 100, "it"), pytest.raises(CheckpointError):
        value.clone()


@pytest.mark.parametrize("recipe", ["mnist", "mnist-graph", "spheres-ce", "spheres-ice"])
def test_honest_models_are_far_from_the_limits(recipe: str) -> None:
    import flowclf.recipe
    import flowclf.recipe.building as building

    loaded = flowclf.recipe.load(recipe, ["data.train_size=6000", "data.test_size=100"] if "spheres" in recipe else [])
    clf = building.build_model(loaded.recipe, building.build_data(loaded.recipe))
    limit = limit_for({name: tuple(value.shape) for name, value in clf.state_dict().items()}, "it")
    before = limit.limit, limit.operations
    with limit:
        checkpoint.rebuild(checkpoint.describe(clf))
    assert limit.limit > before[0] / 2
    assert limit.operations > before[1] / 2


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a wide layer": lambda graph: graph["nodes"][2]["arguments"].update(subnet={"dense": {"width": 2**40, "hidden_layers": 1}}),
    "many layers": lambda graph: graph["nodes"][2]["arguments"].update(subnet={"dense": {"width": 1, "hidden_layers": 10**9}}),
    "a large input": lambda graph: graph["input"].update(shape=[2**24]),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_small_file_cannot_ask_for_much(change: Callable[[Any], Any], vector_classifier: Any, tmp_path: Path) -> None:
    file = flowclf.save(vector_classifier, tmp_path) / checkpoint.DESCRIPTION
    description = json.loads(file.read_text())
    change(description["graph"])
    file.write_text(json.dumps(description))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(CheckpointError, match=r"model\.json"):
        flowclf.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert time.monotonic() - started < 20


def test_an_input_is_not_larger_than_the_weights(tmp_path: Path) -> None:
    clf = tiny.vector_classifier()
    held = sum(value.numel() for value in clf.state_dict().values())
    assert math.prod(clf.input_shape) <= held
    file = flowclf.save(clf, tmp_path) / checkpoint.DESCRIPTION
    description = json.loads(file.read_text())
    description["graph"]["input"]["shape"] = [held + 1]
    file.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=f"an input of {held + 1} dimensions, but the weights hold {held} numbers"):
        flowclf.load(tmp_path)
