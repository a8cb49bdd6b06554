"""Every long command says how long it will take; here all work counts as long."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowclf.cli.main import main

RECIPE = """
name: tiny
data: {{name: arrays, path: {path}, batch_size: 64, bits: 4, validation: 0.2}}
model: [squeeze, actnorm, {{affine_coupling: {{subnet: {{conv: {{width: 4}}}}}}}}, split_head]
loss: {{name: cross_entropy}}
train: {{epochs: 1, precision: fp32}}
evaluate: {{probe: {{hidden: [8]}}}}
"""


@pytest.mark.usefixtures("no_settings")
def test_long_commands_announce_their_durations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("flowclf.progress", "flowclf.cli.progress"):
        monkeypatch.setattr(f"{module}.LONG_SECONDS", 0.0)
    monkeypatch.setattr("flowclf.cli.progress._SECONDS_TO_MEASURE", 0.0)
    labels = np.arange(300) % 2
    images = np.random.default_rng(0).integers(0, 200, (300, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "pictures.npz", images=images, labels=labels)
    recipe, run, zoo = tmp_path / "tiny.yaml", str(tmp_path / "run"), str(tmp_path / "zoo")
    recipe.write_text(RECIPE.format(path=json.dumps(str(tmp_path / "pictures.npz"))))

    def said(*arguments: str) -> list[str]:
        assert main(list(arguments)) == 0
        lines = capsys.readouterr().err.splitlines()
        assert all(line.split(": about ")[1].endswith(("seconds", "minutes", "hours")) for line in lines if ": about " in line)
        return [line.split(": about ")[0] for line in lines if ": about " in line]

    begun = said("recipe", "run", str(recipe), "--out", run, "--device", "cpu")
    assert begun[:4] == ["evaluation after the training", "training", "evaluation", "encoding"]
    assert {"probe mlp", "metamers"} <= set(begun)
    assert said("evaluate", run, "--device", "cpu")[0] == "evaluation"
    for name in ("one", "two"):
        assert said("zoo", "add", run, "--name", name, "--to", zoo)[0] == "evaluation"
    assert said("zoo", "verify", "--index", zoo)[0] == "2 models"
    assert said("example6", "--points", "1000") == ["points"]
