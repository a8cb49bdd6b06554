"""A run on small spheres: the oracle's results, the figure in the report, and the same figure by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowclf.cli.main import main
from flowclf.errors import UsageError
from flowclf.recipe import loads
from flowclf.run import RunResult, evaluate_model, planes, run

RECIPE = """
name: small-spheres
data: {name: spheres, dimension: 12, train_size: 7000, validation: 1000, test_size: 1000, batch_size: 100}
model: {name: firevnet_fc, width: 16, blocks: 2, logit_scale: 10.0}
loss: {name: cross_entropy}
train: {epochs: 4, optimizer: {name: adam, lr: 0.002}, precision: fp32}
evaluate: {probe: {hidden: [32, 32], examples: 2000}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(loads(RECIPE), tmp_path_factory.mktemp("runs") / "spheres", "cpu")


def test_a_run_on_spheres_tells_what_the_oracle_says(finished: RunResult) -> None:
    results = finished.results
    assert results["test.error"] < 0.05
    assert results["probe.hidden"] == "32-32"
    assert results["probe.train_examples"] == 2000
    assert results["probe.test_error"] < 0.05
    assert results["metamers.oracle.donor"] > 0.4
    assert results["metamers.adversarial"] == pytest.approx(results["metamers.oracle.donor"], abs=0.02)
    assert results["planes.path.classifier_changes"] == 0
    assert json.loads((finished.folder / "results.json").read_text()) == results
    report = (finished.folder / "report.html").read_text()
    assert "Decision regions in planes" in report
    assert "planes.pair.classifier_disagreement" in report


def test_the_command_draws_the_figure_of_the_run(finished: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    numbers = planes(str(finished.folder), None, out, 0, "cpu")
    assert out.read_bytes()[:4] == b"\x89PNG"
    with np.load(out.with_suffix(".npz")) as drawn, np.load(finished.folder / "figures" / "planes.npz") as own:
        assert set(drawn) == set(own)
        for name in own:
            np.testing.assert_allclose(drawn[name], own[name], rtol=1e-3, atol=1e-3, err_msg=name)
    for name, value in numbers.items():
        if name.startswith("planes."):
            assert value == pytest.approx(finished.results[name], abs=1e-3), name
    other = planes(str(finished.folder), None, out, 1, "cpu")
    assert other["planes.distance"] != numbers["planes.distance"]


def test_an_evaluation_from_the_command_line_has_the_recipes_probe(finished: RunResult) -> None:
    again = evaluate_model(str(finished.folder), device="cpu")
    assert again["probe.hidden"] == "32-32"
    assert again["probe.test_error"] == finished.results["probe.test_error"]
    assert again["metamers.adversarial"] == finished.results["metamers.adversarial"]


def test_what_cannot_be_drawn_is_refused(finished: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"expected a \.png file, found .*figure\.pdf"):
        planes(str(finished.folder), None, tmp_path / "figure.pdf")
    # spheres of another dimension than the model's
    assert main(["planes", str(finished.folder), "--data", "mnist", "--out", str(tmp_path / "p.png")]) == 2
    assert "data set 'mnist' has 10 classes of shape (1, 28, 28)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
