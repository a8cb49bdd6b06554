"""The paper's Figure 6 for two models, here tiny and untrained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import flowclf
from flowclf.cli.main import main
from flowclf.paper.figure6 import pairs_by_class

NODES = ["squeeze", "actnorm", "invertible_conv1x1", "split_head"]


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Two classifiers, an oracle, and data of two classes, bright above or bright below, in files."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 60, (60, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 150
    np.savez(tmp_path / "data.npz", images=images.astype(np.uint8), labels=labels)
    for name in ("ce", "ice"):
        flowclf.save(flowclf.build_classifier((1, 8, 8), NODES, 2).eval(), tmp_path / name)
    data = flowclf.data.load("arrays", path=str(tmp_path / "data.npz"), validation=0.2, batch_size=8)
    oracle = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4], "hidden": 0}}, 2)
    flowclf.fit(oracle, flowclf.losses.CrossEntropy(), data, epochs=4, optimizer={"name": "adam", "lr": 0.02})
    flowclf.save(oracle, tmp_path / "oracle")
    return [str(tmp_path / name) for name in ("ce", "ice", "oracle", "data.npz")]


def test_both_models_get_the_same_pairs_and_the_oracle_reads_every_picture(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ce, ice, oracle, data = models
    out = tmp_path / "figure6.png"
    assert (
        main(["paper", "figure6", ce, ice, "--oracle", oracle, "--data", data, "--out", str(out), "--rows", "3", "--steps", "4"])
        == 0
    )
    with Image.open(out) as picture:
        assert picture.size[1] > picture.size[0] / 2
    with np.load(out.with_suffix(".npz")) as file:
        arrays = dict(file)
    test = flowclf.data.load("arrays", path=data, validation=0.1).test
    own = test.labels[arrays["first"]].numpy()
    assert own.tolist() == [0, 1, 0]
    assert (test.labels[arrays["second"]].numpy() == 1 - own).all()
    for name in ("CE", "iCE"):
        assert arrays[f"{name}.pictures"].shape == (3, 4, 1, 8, 8)
        # The path begins at the first picture itself, which the oracle labels with its class.
        difference = arrays[f"{name}.pictures"][:, 0].astype(int) - test.inputs[arrays["first"]].numpy()
        assert np.abs(difference).max() <= 1
        assert arrays[f"{name}.readings"][:, 0].tolist() == own.tolist()
    ends = arrays["iCE.readings"][:, -1]
    assert f"| iCE | {(ends == own).sum()} of 3 | {(ends != own).sum()} of 3 |" in capsys.readouterr().out


def test_wrong_use_is_refused(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ce, ice, oracle, data = models
    assert main(["paper", "figure6", ce, ice, "--oracle", oracle]) == 2
    assert "name the data set with --data" in capsys.readouterr().err
    assert main(["paper", "figure6", ce, oracle, "--oracle", oracle, "--data", data]) == 2
    assert "iCE: expected an invertible classifier" in capsys.readouterr().err
    assert main(["paper", "figure6", ce, ice, "--oracle", oracle, "--data", data, "--out", str(tmp_path / "f.jpg")]) == 2
    assert "expected a .png file" in capsys.readouterr().err
    assert not list(tmp_path.glob("f.*"))


def test_pairs_go_through_the_classes_and_do_not_repeat() -> None:
    labels = torch.arange(40) % 4
    first, second = pairs_by_class(labels, 9, seed=0)
    assert labels[first].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert (labels[first] != labels[second]).all()
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == 9
