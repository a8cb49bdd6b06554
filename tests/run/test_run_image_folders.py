"""Recipes on folders of images that are not square: trained, evaluated on another folder, and asked for one image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowclf.cli.main import main


def folder(root: Path, seed: int) -> Path:
    """Twenty wide images of each of two classes, bright on the left or on the right."""
    random = np.random.default_rng(seed)
    for side, name in enumerate(("left", "right")):
        (root / name).mkdir(parents=True)
        for position in range(20):
            pixels = random.integers(0, 60, (12, 24), dtype=np.uint8)
            pixels[:, 12 * side : 12 * side + 12] += 150
            Image.fromarray(pixels).save(root / name / f"{position}.png")
    return root


def test_images_of_any_height_and_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: wide\ndata: {{name: image_folder, root: '{folder(tmp_path / 'images', 0)}', size: [8, 16], validation: 6}}\n"
        "model: {name: firevnet, stages: 2, blocks: 1, width: 8}\nloss: {name: cross_entropy}\n"
        "train: {epochs: 25, optimizer: {name: adam, lr: 1.0e-2}, precision: fp32}\nevaluate: {probe: {hidden: [8]}}\n"
    )
    run = tmp_path / "run"
    assert main(["recipe", "run", str(recipe), "--out", str(run), "--device", "cpu"]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["test.error"] == 0
    assert results["numerics.inverse_error_max"] < 1e-3
    other = folder(tmp_path / "others", 1)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(other), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test.error"] == 0
    assert main(["predict", str(run), str(other / "right" / "3.png"), "--device", "cpu"]) == 0
    assert "right" in capsys.readouterr().out.splitlines()[-1].split("\t")
    assert main(["metamers", str(run), "--out", str(tmp_path / "metamers.png"), "--device", "cpu"]) == 0
