"""A tiny zoo, and a finished run to make one of. Not tests themselves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch

import flowclf
from flowclf import checkpoint
from flowclf.zoo.schema import ZooFile

NAME = "tiny"
FILES = ("model.json", "model.safetensors", "README.md")


def zoo_file(path: Path, relative: str) -> dict[str, Any]:
    content = path.read_bytes()
    return {"path": relative, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_zoo(folder: Path, name: str = NAME, **changes: Any) -> dict[str, Any]:
    """A zoo with one untrained model, and its index as a document."""
    torch.manual_seed(0)
    clf = tiny.image_classifier()
    flowclf.save(clf, folder / name)
    (folder / name / "README.md").write_text("# A card\n")
    entry = {
        "name": name,
        "version": 1,
        "kind": "invertible",
        "architecture": "nodes",
        "parameters": clf.parameter_count(),
        "classes": clf.classes,
        "recipe": {"name": "none", "sha256": "0" * 64, "shipped": False},
        "seed": 0,
        "files": {file: zoo_file(folder / name / file, f"{name}/{file}") for file in FILES},
        "data": {"name": "mnist", "examples": 10_000},
        "preprocessing": clf.preprocessing.config(),
        "licence": "MIT",
        "citation": "nobody",
        "reported": {},
        "measured": {"test.error": {"value": 0.5, "tolerance": 0.0}},
        "training": {"command": "none", "machine": "none", "seconds": 0.0, "torch": torch.__version__},
        "flowclf": flowclf.__version__,
    } | changes
    document = {"format": "flowclf-zoo", "version": 1, "models": [entry]}
    (folder / "index.json").write_text(json.dumps(document))
    return document


def files_of(document: dict[str, Any]) -> dict[str, ZooFile]:
    return {name: ZooFile(**file) for name, file in document["models"][0]["files"].items()}


RECIPE = """\
name: little
description: A little recipe.
seed: 3
data: {{name: arrays, path: "{path}", batch_size: 8, bits: 4, validation: 4}}
model: [squeeze, actnorm, {{affine_coupling: {{subnet: {{conv: {{width: 4}}}}}}}}, split_head]
loss: {{name: cross_entropy}}
train: {{epochs: 2}}
evaluate: {{probe: {{hidden: [8]}}}}
"""


def write_run(folder: Path, overrides: tuple[str, ...] = ()) -> Path:
    """What a finished run leaves, except for the training: made data, an untrained model, and what it measures."""
    import flowclf.recipe
    from flowclf.recipe.building import build_data, build_model
    from flowclf.run import RunFolder
    from flowclf.zoo.measuring import measure

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    data = folder / "data.npz"
    np.savez(data, train_images=images[:40], train_labels=labels[:40], test_images=images[40:], test_labels=labels[40:])
    text = RECIPE.format(path=data)
    loaded = flowclf.recipe.loads(text, overrides)
    run = RunFolder(folder)
    run.recipe.write_text(text)
    run.resolved.write_text(flowclf.recipe.dump(loaded.recipe))
    run.write_environment(torch.device("cpu"))
    dataset = build_data(loaded.recipe)
    clf = tiny.randomize(build_model(loaded.recipe, dataset), 0.1).eval()
    checkpoint.save(clf, run.model, metadata={"recipe": "little"})
    found = measure(clf, dataset, loaded.recipe.seed)
    results = {"recipe": "little", "seed": 3, **found, "test.chance_error": 0.65, "seconds.train": 90.0, "probe.name": "mlp"}
    run.results.write_text(json.dumps(results))
    run.figures.mkdir()
    (run.figures / "metamers.png").write_bytes(b"\x89PNG\r\n\x1a\nmetamers")
    (run.figures / "planes.png").write_bytes(b"\x89PNG\r\n\x1a\nplanes")
    return folder
