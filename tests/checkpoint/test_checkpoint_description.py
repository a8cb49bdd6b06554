"""Descriptions: what is refused before anything is built from them, with the place and the limit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import tiny

from flowclf import checkpoint
from flowclf.checkpoint.description import check_description
from flowclf.errors import CheckpointError


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return checkpoint.describe(tiny.vector_classifier())


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def of_node(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda description: description["graph"]["nodes"][0].update(changes)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key": (lambda d: d.update(code="x"), "code: Extra inputs"),
    "unknown key of a node": (of_node(code="x"), "graph.nodes.0.code"),
    "missing key": (lambda d: d.pop("class_names"), "class_names: Field required"),
    "no nodes": (lambda d: d["graph"].update(nodes=[]), "graph.nodes"),
    "too many nodes": (lambda d: d["graph"].update(nodes=d["graph"]["nodes"] * 2001), "graph.nodes: .* at most 10000"),
    "size of 0": (lambda d: d["graph"]["input"].update(shape=[0]), "graph.input.shape.0"),
    "size of 2^25": (lambda d: d["graph"]["input"].update(shape=[2**25]), "graph.input.shape.0"),
    "size as text": (lambda d: d["graph"]["input"].update(shape=["3"]), "graph.input.shape.0"),
    "four sizes": (lambda d: d["graph"]["input"].update(shape=[1, 1, 1, 3]), "graph.input.shape"),
    "bits": (lambda d: d["preprocessing"].update(bits=9), "preprocessing.bits"),
    "pad": (lambda d: d["preprocessing"].update(pad=2000), "preprocessing.pad"),
    "one class": (lambda d: d.update(class_names=["a"]), "class_names"),
    "long name": (of_node(name="x" * 201), "graph.nodes.0.name"),
    "long text": (lambda d: d.update(metadata={"note": "x" * 10_001}), "at most 10000 characters"),
    "large number": (of_node(arguments={"width": 10**40}), "at most 2\\^53"),
    "depth": (lambda d: d.update(metadata={"deep": nested(40)}), "at most 32 nested levels"),
    "values": (lambda d: d.update(metadata={"many": [0] * 1_000_001}), "at most 1000000 values"),
    "weights elsewhere": (lambda d: d.update(weights={"file": "../a.safetensors", "sha256": "0" * 64, "bytes": 1}), "weights.file"),
    "weights of a pickle": (lambda d: d.update(weights={"file": "model.pt", "sha256": "0" * 64, "bytes": 1}), "weights.file"),
    "no hash": (lambda d: d.update(weights={"file": "a.safetensors", "sha256": "0", "bytes": 1}), "weights.sha256"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_description_is_refused_with_the_place(description: Any, change: Callable[[Any], Any], words: str) -> None:
    broken = copy.deepcopy(description)
    change(broken)
    with pytest.raises(CheckpointError, match=f"here: .*{words}"):
        check_description(broken, "here")


def test_what_is_saved_passes(description: dict[str, Any], image_classifier: Any) -> None:
    check_description(description)
    check_description(checkpoint.describe(image_classifier))


def test_an_error_is_short_whatever_it_is_about(description: dict[str, Any]) -> None:
    for change in ({"format": "x" * 10**6}, {"kind": "x" * 10**6}, {"class_names": [1] * 10**5}):
        with pytest.raises(CheckpointError) as caught:
            check_description({**description, **change})
        assert len(str(caught.value)) <= 500
