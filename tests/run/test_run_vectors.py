"""Recipes on vectors and signals in their own units: trained, saved, evaluated, loaded and run backwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import flowclf
from flowclf.cli.main import main

RECIPE = """
name: units
data: {{name: arrays, path: '{path}', kind: {kind}, standardize: {standardize}, validation: 0.2, batch_size: 50}}
model: {{name: firevnet_fc, width: 16, blocks: 3, coupling: affine, actnorm: {actnorm}, logit_scale: 5.0}}
loss: {{name: cross_entropy}}
train: {{epochs: 5, optimizer: {{name: adam, lr: 5.0e-3}}, precision: fp32}}
"""


def signals(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sine waves of two frequencies, in millivolts around 500, and a dead channel."""
    random = np.random.default_rng(seed)
    names = np.array(["slow", "fast"])[random.integers(0, 2, n)]
    frequency = np.where(names == "slow", 1, 3)[:, None]
    wave = np.sin(2 * np.pi * frequency * np.linspace(0, 1, 16) + random.normal(0, 0.3, (n, 1)))
    first = 500 + 200 * wave + random.normal(0, 10, (n, 16))
    return np.stack((first, np.full_like(first, 12.5)), axis=1).astype(np.float32), names


@pytest.mark.parametrize(("kind", "actnorm"), [("signals", "true"), ("vectors", "false")])
def test_standardised_data_are_learnt_and_come_back_in_their_units(tmp_path: Path, kind: str, actnorm: str) -> None:
    (values, names), (test, test_names) = signals(400, 0), signals(100, 1)
    if kind == "vectors":
        values, test = (each.reshape(len(each), -1) for each in (values, test))
    np.savez(tmp_path / "data.npz", train_images=values, train_labels=names, test_images=test, test_labels=test_names)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(path=tmp_path / "data.npz", kind=kind, standardize="true", actnorm=actnorm))
    assert main(["recipe", "run", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test.error"] <= 0.05
    assert results["numerics.inverse_error_max"] < 1e-3
    clf = flowclf.load(tmp_path / "run" / "checkpoints" / "final")
    assert clf.class_names == ("fast", "slow")
    data = torch.from_numpy(test)
    assert clf.preprocessing.image_shape == tuple(data.shape[1:])
    with torch.no_grad():
        x = clf.preprocessing(data)
        assert x.shape == (100, 32)
        assert x.abs().max() < 10
        wrong = clf.logits_only()(data).argmax(1) != torch.from_numpy(test_names == "slow").long()
        assert wrong.double().mean().item() == results["test.error"]
        back = clf.preprocessing.inverse(clf.inverse(*clf(x)[:2]))
    torch.testing.assert_close(back, data, atol=0.1, rtol=0)


def test_only_the_training_part_decides_the_units(tmp_path: Path) -> None:
    values, names = signals(200, 0)
    np.savez(tmp_path / "data.npz", train_images=values, train_labels=names, test_images=values * 100, test_labels=names)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(path=tmp_path / "data.npz", kind="signals", standardize="true", actnorm="true"))
    from flowclf.recipe import load
    from flowclf.recipe.building import build_data, build_model

    loaded = load(str(recipe)).recipe
    data = build_data(loaded)
    assert len(data.train) == 160
    mean = build_model(loaded, data).preprocessing.mean
    assert mean == pytest.approx(data.train.inputs.double().mean((0, 2)).tolist())


def test_a_network_for_images_refuses_signals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, names = signals(60, 0)
    np.savez(tmp_path / "data.npz", images=values, labels=names)
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.format(path=tmp_path / "data.npz", kind="signals", standardize="false", actnorm="true")
    recipe.write_text(text.replace("firevnet_fc", "firevnet").replace("width: 16, blocks: 3, ", ""))
    assert main(["recipe", "run", str(recipe), "--dry-run"]) == 2
    assert "needs feature maps (C, H, W)" in capsys.readouterr().err
    recipe.write_text(text.replace("kind: signals, ", ""))
    assert main(["recipe", "run", str(recipe), "--dry-run"]) == 1
    assert "may be grey images in [0, 1] or signals (N, C, L): kind says which" in capsys.readouterr().err


def test_images_are_not_standardised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: digits\ndata: {name: mnist, standardize: true, train_limit: 100}\n"
        "model: [squeeze, actnorm, split_head]\nloss: {name: cross_entropy}\n"
    )
    assert main(["recipe", "run", str(recipe), "--dry-run"]) == 2
    assert "images become [-1, 1] without it" in capsys.readouterr().err
