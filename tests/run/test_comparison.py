"""``flowclf compare``, and sweeps over seeds, with real runs of a tiny network."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import flowclf.run.sweeping
from flowclf.cli.main import main
from flowclf.errors import CheckpointError, InterruptedRunError, UsageError
from flowclf.recipe import loads
from flowclf.run import evaluate_model, resume_sweep, run, sweep
from flowclf.run.comparison import RunRecord, compare, read_runs

RECIPE = """
name: tiny
seed: 7
data: {{name: arrays, path: {path}, batch_size: 64, bits: 4, validation: 0.2}}
model: [squeeze, actnorm, {{affine_coupling: {{subnet: {{conv: {{width: 4}}}}}}}}, split_head]
loss: {{name: cross_entropy}}
train: {{epochs: 1, precision: fp32}}
evaluate: {{probe: {{hidden: [8]}}}}
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe on two classes of 8 x 8 pictures."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    images = rng.integers(0, 200, (300, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 50
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return RECIPE.format(path=json.dumps(str(path)))


@pytest.fixture(scope="module")
def swept(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(loads(text), [0, 1, 2], tmp_path_factory.mktemp("sweep") / "out", "cpu").folder


def results(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "results.json").read_text())
    return {key: value for key, value in found.items() if not key.startswith("seconds.")}


def test_a_sweep_is_a_run_per_seed_and_how_they_vary(text: str, swept: Path, tmp_path: Path) -> None:
    runs = [results(swept / f"seed-{seed}") for seed in (0, 1, 2)]
    assert [found["seed"] for found in runs] == [0, 1, 2]
    assert runs[1] == results(run(loads(text, ["seed=1"]), tmp_path / "alone", "cpu").folder)
    summary = json.loads((swept / "summary.json").read_text())
    assert summary["runs"] == ["seed 0", "seed 1", "seed 2"]
    assert summary["comparable"]
    assert summary["settings"] == {"seed": [0, 1, 2]}
    values = [found["test.cross_entropy_nats"] for found in runs]
    assert len(set(values)) == 3
    assert summary["results"]["test.cross_entropy_nats"] == values
    assert summary["spread"]["test.cross_entropy_nats"] == {
        "mean": pytest.approx(statistics.mean(values)),
        "standard_deviation": pytest.approx(statistics.stdev(values)),
        "lowest": min(values),
        "highest": max(values),
    }


def test_a_sweep_that_was_interrupted_does_what_is_left(
    text: str, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    done: list[int] = []

    def interrupted(loaded: Any, *arguments: Any) -> Any:
        if loaded.recipe.seed == 1:
            (folder / "seed-1").mkdir()
            (folder / "seed-1" / "recipe.yaml").write_text("left by a run that was killed")
            raise InterruptedRunError("SIGINT at step 0 of 4; resume with: flowclf recipe run --resume x", 2)
        done.append(loaded.recipe.seed)
        return run(loaded, *arguments)

    monkeypatch.setattr(flowclf.run.sweeping, "run", interrupted)
    with pytest.raises(
        InterruptedRunError, match=f"^seed 1, run 2 of 3: SIGINT at step 0 of 4; resume .* --resume {folder}$"
    ) as error:
        sweep(loads(text), [0, 1, 2], folder, "cpu")
    assert error.value.exit_code == 130
    assert not (folder / "summary.json").exists()
    before = (folder / "seed-0" / "results.json").read_bytes()
    monkeypatch.setattr(flowclf.run.sweeping, "run", run)
    resume_sweep(folder, "cpu")
    assert done == [0]
    assert (folder / "seed-0" / "results.json").read_bytes() == before
    for seed in (0, 1, 2):
        assert results(folder / f"seed-{seed}") == results(swept / f"seed-{seed}")


def test_a_sweep_from_the_command_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(text)
    out = tmp_path / "out"
    assert main(["recipe", "run", str(recipe), "--seeds", "3", "5", "--out", str(out), "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "result\tseed 3\tseed 5\tmean\tstandard deviation\trange"
    assert "seed 5, run 2 of 2" in output.err
    assert main(["recipe", "run", "--resume", str(out), "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["runs"] == ["seed 3", "seed 5"]
    assert output.err.count("finished before") == 2
    (out / "sweep.json").write_text('{"seeds": [1, 1]}')
    assert main(["recipe", "run", "--resume", str(out)]) == 1
    assert "expected a list of different seeds, found [1, 1]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mnist", "--seeds", "0"], "at least two different seeds from 0, found 0"),
        (["mnist", "--seeds", "1,1"], "at least two different seeds from 0, found 1, 1"),
        (["mnist", "--seeds", "0,x"], "expected integers from 0, as in --seeds 0 1 2, found 'x'"),
        (["mnist", "--seeds", "-1,2"], "found '-1'"),
        (["mnist", "--seeds", ""], "found none"),
        (["mnist", "--seeds", "0,1", "--set", "seed=3"], "cannot be combined with --set seed"),
        (["mnist", "mnist-ce"], "expected one RECIPE, found mnist, mnist-ce"),
        (["mnist", "--seeds", "0", "1", "mnist-ce"], "expected one RECIPE, found mnist, mnist-ce"),
        (["--resume", ".", "--seeds", "0,1"], "--resume of a sweep uses its recipe and seeds"),
    ],
)
def test_seeds_that_are_not_a_sweep(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "run", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_recipe_that_cannot_run_leaves_no_sweep(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="squeeze"):
        sweep(loads(text.replace("squeeze", "{squeeze: {factor: 3}}")), [0, 1], tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_runs_side_by_side(text: str, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run(loads(text, ["train.epochs=2", "train.optimizer.lr=0.01"]), tmp_path / "other", "cpu").folder
    limited = tmp_path / "limited.json"
    limited.write_text(json.dumps(evaluate_model(str(other), device="cpu", limit=10)))
    first = swept / "seed-0"
    assert main(["compare", str(first), str(other)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    table, settings = (part.splitlines() for part in output.out.split("\n\n"))
    assert table[0] == f"result\t{first}\t{other}"
    error, low, high = (100 * results(first)[f"test.error{end}"] for end in ("", "_low", "_high"))
    assert (
        next(line for line in table if line.startswith("test.error\t")).split("\t")[1] == f"{error:.2f} % ({low:.2f} to {high:.2f})"
    )
    assert settings[1:] == ["seed\t0\t7", "train.epochs\t1\t2", "train.optimizer.lr\t0.001\t0.01"]
    # A limited evaluation is never mistaken for a full one.
    assert main(["compare", str(other), str(limited), "--json"]) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert not document["comparable"]
    assert (
        f"evaluation.limit differs ({other}: none, {limited}: 10), so these are not comparable: all results" in document["problems"]
    )
    assert "warning: evaluation.limit differs" in output.err
    assert main(["paper", "seeds", str(other), str(limited)]) == 2
    assert main(["compare", str(swept)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("seed 2\tmean\tstandard deviation\trange")


RUN = {"seed": 0, "protocol": "full", "data.name": "mnist", "test.error": 0.1, "test.examples": 10}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "quick"}, "protocol differs (a: full, b: quick), so these are not comparable: probe.* and metamers.*"),
        ({"data.name": "svhn"}, "data.name differs (a: mnist, b: svhn), so these are not comparable: all results"),
        ({"test.examples": 9}, "test.examples differs (a: 10, b: 9), so these are not comparable: all results"),
    ],
)
def test_what_makes_results_incomparable(change: dict[str, Any], words: str) -> None:
    comparison = compare([RunRecord("a", RUN), RunRecord("b", {**RUN, "seed": 1, **change})])
    assert comparison.problems == (words,)
    assert "spread" not in comparison.data
    assert "spread" in compare([RunRecord("a", RUN), RunRecord("b", {**RUN, "seed": 1})]).data


def test_versions_and_the_place_of_the_data_are_compared() -> None:
    one = RunRecord("a", RUN, {"data.root": "x", "data.batch_size": 1}, {"flowclf": "1", "python": "3"})
    other = RunRecord("b", RUN, {"data.root": "y", "data.batch_size": 2}, {"flowclf": "2", "python": "4"})
    assert compare([one, other]).problems == (
        "data.root differs (x, y), so these may not be comparable: all results",
        "the version of flowclf differs (1, 2), which may change results a little",
    )


def test_runs_that_are_not_there(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(swept / "seed-0")]) == 2
    assert "at least two runs to compare, found 1" in capsys.readouterr().err
    assert main(["compare", "mnist-bset", "mnist-ce"]) == 2
    assert "there is no run directory or file mnist-bset, and there is no model 'mnist-bset'" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "mnist-ce"]) == 2
    assert "found no results.json" in capsys.readouterr().err
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(CheckpointError):
        read_runs(str(tmp_path))
    assert len(read_runs("mnist-ce")[0].settings) > 20


def test_a_folder_that_is_all_test_is_judged_whole(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("0", 3), ("1", 1)):
        (tmp_path / "judge" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((12, 8), 20, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "judge" / name / f"{number}.png")
    model, folder = str(swept / "seed-0"), str(tmp_path / "judge")
    assert main(["evaluate", model, "--data", folder, "--all-test", "--device", "cpu", "--json"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert found["test.class_examples"] == [3, 1]
    assert found["data.name"] == "judge"
    assert found["evaluation.left_out"] == "probe.*, train.*, validation.* (the data are all test)"
    assert "left out: probe.*, train.*, validation.*" in output.err
    (tmp_path / "judge" / "2").mkdir()
    assert main(["evaluate", model, "--data", folder, "--all-test", "--device", "cpu"]) == 1
    assert "expected a class of" in capsys.readouterr().err
    for arguments in ([], ["--data", "mnist"]):
        assert main(["evaluate", model, *arguments, "--all-test", "--device", "cpu"]) == 2
        assert "--all-test: expected --data with a folder of images" in capsys.readouterr().err
