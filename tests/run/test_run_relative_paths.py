"""A recipe with a relative path: its run is resumed, repeated, evaluated, drawn and added to a zoo from other folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowclf.cli.main import main

RECIPE = """
name: tiny
data: {name: image_folder, root: photos, size: 8, batch_size: 16, validation: 8}
model: [squeeze, actnorm, {affine_coupling: {subnet: {conv: {width: 4}}}}, split_head]
loss: {name: cross_entropy}
train: {epochs: 1, precision: fp32}
evaluate: {probe: {hidden: [4]}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_settings: None) -> Path:
    """A folder with photographs and a finished run; the current folder is another."""
    rng = np.random.default_rng(0)
    start = tmp_path / "start"
    for label in range(2):
        for index in range(25):
            image = rng.integers(0, 60, (8, 8)).astype(np.uint8)
            image[4 * label : 4 * label + 4] += 150
            file = start / "photos" / "ab"[label] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    (start / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(start)
    assert main(["recipe", "run", "tiny.yaml", "--out", "run", "--device", "cpu"]) == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    return start


def test_from_another_folder(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(place / "run")
    own = json.loads((place / "run" / "results.json").read_text())
    assert "root: photos" in (place / "run" / "recipe.yaml").read_text()
    capsys.readouterr()
    assert main(["evaluate", run, "--device", "cpu", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {key: own[key] for key in again if not key.startswith("seconds")} == {
        key: value for key, value in again.items() if not key.startswith("seconds")
    }
    assert main(["metamers", run, "--device", "cpu"]) == 0
    # The command that the report shows.
    monkeypatch.chdir(place / "run")
    assert main(["recipe", "run", "resolved.yaml", "--out", "../again", "--device", "cpu"]) == 0
    assert json.loads((place / "again" / "results.json").read_text())["test.error"] == own["test.error"]
    # In its own folder, the recipe as given is still the recipe of the run.
    monkeypatch.chdir(place)
    capsys.readouterr()
    assert main(["recipe", "run", "tiny.yaml", "--resume", "run"]) == 2
    assert "the run has finished" in capsys.readouterr().err


def test_in_a_zoo(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo = tmp_path / "zoo"
    assert main(["zoo", "add", str(place / "run"), "--name", "tiny", "--to", str(zoo)]) == 0
    for file in (zoo / "index.json", zoo / "tiny" / "recipe.yaml", zoo / "tiny" / "README.md"):
        assert str(tmp_path) not in file.read_text()
    entry = json.loads((zoo / "index.json").read_text())["models"][0]
    assert entry["data"]["arguments"]["root"] == "../start/photos"
    assert entry["recipe"]["changed"] == []
    assert main(["zoo", "verify", "--full", "--index", str(zoo)]) == 0
    assert main(["metamers", str(zoo / "tiny"), "--device", "cpu"]) == 0
    (place / "photos").rename(place / "moved")
    capsys.readouterr()
    for command in (["zoo", "verify", "--index", str(zoo)], ["evaluate", str(zoo / "tiny")], ["metamers", str(place / "run")]):
        assert main(command) == 2, command
        assert "--data-root names where" in capsys.readouterr().err
    moved = ["--data-root", str(place / "moved")]
    assert main(["zoo", "verify", "--index", str(zoo), *moved]) == 0
    for command in (["metamers", str(place / "run")], ["evaluate", str(zoo / "tiny")], ["planes", str(place / "run")]):
        assert main([*command, "--device", "cpu", *moved]) == 0, command
    capsys.readouterr()
    assert main(["evaluate", str(place / "run"), "--data", "mnist", *moved]) == 2
    assert "cannot be combined with --data" in capsys.readouterr().err
