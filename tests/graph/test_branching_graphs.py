"""Graphs that branch save and load as the same function, whatever addresses their nodes have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import branching_graphs
import pytest
import safetensors.torch
import torch

import flowclf
from flowclf import registry
from flowclf.files import sha256

pytestmark = pytest.mark.usefixtures("scratch_registries")


def test_new_builds_have_the_order_and_the_names_of_the_first(tmp_path: Path) -> None:
    branching_graphs.check(tmp_path, count=10)


@pytest.mark.slow
def test_a_hundred_builds_in_ten_processes(tmp_path: Path) -> None:
    for _ in range(10):
        subprocess.run([sys.executable, branching_graphs.__file__, str(tmp_path), "10"], check=True, timeout=300)


@pytest.mark.parametrize("shape", branching_graphs.SHAPES)
def test_files_whose_nodes_are_in_another_order_load_by_the_nodes_names(shape: str, tmp_path: Path) -> None:
    """As earlier versions wrote them: in FrEIA's order, by which the weights are named."""
    registry.nodes.register("freia_split")(branching_graphs.Split)
    clf = branching_graphs.build(shape, seed=2)
    folder = flowclf.save(clf, tmp_path / "model")
    description = json.loads((folder / "model.json").read_text())
    rows = description["graph"]["nodes"]
    # Another valid order: each node as late as it may come.
    order, left = [], list(range(len(rows)))
    while left:
        used = {name for index in left for name, _ in rows[index]["inputs"]}
        last = next(index for index in left if rows[index]["name"] not in used)
        order.insert(0, last)
        left.remove(last)
    assert order != list(range(len(rows)))
    state = safetensors.torch.load_file(folder / "model.safetensors")
    new = {old: position for position, old in enumerate(order)}
    moved = {}
    for name, value in state.items():
        parts = name.split(".")
        if name.startswith("graph.module_list."):
            parts[2] = str(new[int(parts[2])])
        moved[".".join(parts)] = value
    safetensors.torch.save_file(moved, folder / "model.safetensors")
    description["graph"]["nodes"] = [rows[index] for index in order]
    description["weights"]["sha256"] = sha256(folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(description))
    torch.testing.assert_close(branching_graphs.function(flowclf.load(folder)), branching_graphs.function(clf), rtol=0, atol=0)
