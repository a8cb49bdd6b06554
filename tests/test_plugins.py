"""Another package adds components by entry points alone: built as a wheel, installed, and used by a recipe like flowclf's own.

A package that fails to import, and two that claim one name, are named and break nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Flowclf = Callable[..., "subprocess.CompletedProcess[str]"]

PLUGINS = Path(__file__).parent / "plugins"
RECIPE = """
name: example
data: {name: mnist, batch_size: 64, bits: 4, train_limit: 256}
model:
  - squeeze
  - even_odd
  - additive_coupling: {subnet: {linear: {rank: 4, activation: softplus}}}
  - split_head
loss: {name: margin, width: 2.0}
train:
  epochs: 1
  schedule: {name: sawtooth, teeth: 3, warmup_steps: 1}
"""


@pytest.fixture(scope="module")
def flowclf(tmp_path_factory: pytest.TempPathFactory) -> Flowclf:
    """The command line, in an environment where both packages are installed."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, str(PLUGINS / "example"), str(PLUGINS / "rival")], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flowclf.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)

    return run


@pytest.fixture(scope="module")
def finished(flowclf: Flowclf, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of the recipe, and what it said on standard error."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "example.yaml").write_text(RECIPE)
    result = flowclf("recipe", "run", str(folder / "example.yaml"), "--out", str(folder / "out"))
    assert result.returncode == 0, result.stderr
    return folder / "out", result.stderr


def test_a_recipe_uses_a_branching_node_a_vector_subnet_a_schedule_and_a_loss(finished: tuple[Path, str]) -> None:
    out, _ = finished
    kinds = [node["kind"] for node in json.loads((out / "checkpoints/final/model.json").read_text())["graph"]["nodes"]]
    assert kinds == ["squeeze", "even_odd", "additive_coupling", "split_head"]
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["train.margin"] > 0
    # The fourth and last step of an epoch of 4 is the second of the last of three teeth: 1 - (3 * 3 / 4) % 1.
    assert row["learning_rate"] == pytest.approx(0.75e-3)


def test_a_metric_and_a_probe_show_in_results_report_and_card(flowclf: Flowclf, finished: tuple[Path, str]) -> None:
    out, _ = finished
    results = json.loads((out / "results.json").read_text())
    assert 0 < results["test.brier_score"] < 2
    assert 0 < results["probe.linear.test_error"] < 1
    assert results["probe.test_error"] == min(results["probe.linear.test_error"], results["probe.mlp.test_error"])
    report = (out / "report.html").read_text()
    assert "mean squared distance of the probabilities from the label" in report
    assert "linear, on the nuisances as a vector" in report
    zoo = out.parent / "zoo"
    added = flowclf("zoo", "add", str(out), "--name", "example", "--to", str(zoo))
    assert added.returncode == 0, added.stderr
    card = (zoo / "example" / "README.md").read_text()
    assert "mean squared distance of the probabilities from the label" in card
    assert f"{results['test.brier_score']:.3g}"[:4] in card


def test_the_model_loads_with_the_package_and_is_refused_in_words_without(flowclf: Flowclf, finished: tuple[Path, str]) -> None:
    out, _ = finished
    again = flowclf("evaluate", str(out), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test.error"] == json.loads((out / "results.json").read_text())["test.error"]
    without = [sys.executable, "-m", "flowclf.cli.main", "evaluate", str(out / "checkpoints/final"), "--data", "mnist"]
    result = subprocess.run(without, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 1
    assert "unknown node 'even_odd'" in result.stderr


def test_what_cannot_be_imported_is_named_and_left_out(flowclf: Flowclf, finished: tuple[Path, str], tmp_path: Path) -> None:
    _, said = finished
    assert "metric 'unimportable' cannot be loaded from flowclf_example.broken:metric" in said
    broken = tmp_path / "broken.yaml"
    broken.write_text(RECIPE.replace("- even_odd", "- broken"))
    result = flowclf("recipe", "validate", str(broken), "mnist")
    assert result.returncode == 2
    assert "broken.yaml:6:5: model.1: node 'broken' cannot be loaded from flowclf_example.broken:Node" in result.stderr
    assert "needs a library that is not installed" in result.stderr
    assert result.stdout == "mnist: valid\n"


def test_packages_that_claim_one_name_are_named_and_flowclf_keeps_its_own(flowclf: Flowclf, tmp_path: Path) -> None:
    contested = tmp_path / "contested.yaml"
    contested.write_text(RECIPE.replace("name: margin, width: 2.0", "name: contested"))
    result = flowclf("recipe", "validate", str(contested), "mnist-ce")
    assert result.returncode == 2
    assert "loss 'contested' is registered twice" in result.stderr
    assert "flowclf-example" in result.stderr
    assert "flowclf-rival" in result.stderr
    assert result.stdout == "mnist-ce: valid\n"


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (("rank: 4", "rank: 1"), "7:49", "greater than or equal to 2"),
        (("rank: 4", "rank: 0.5"), "7:49", "valid integer"),
        (("softplus", "softplus2"), "7:64", "'tanh' or 'softplus'"),
        (("teeth: 3", "teeth: 10"), "12:37", "less than or equal to 9"),
        (("width: 2.0", "widht: 2.0"), "9:22", "did you mean 'width'"),
    ],
)
def test_its_annotations_are_honoured(flowclf: Flowclf, tmp_path: Path, change: tuple[str, str], place: str, words: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace(*change))
    result = flowclf("recipe", "validate", str(recipe))
    assert result.returncode == 2
    assert f"recipe.yaml:{place}" in result.stderr
    assert words in result.stderr
