"""The benchmarks at a size that takes seconds: every contender is the same function, and each command writes its table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import on_grid, write_images

from benchmarks import accuracy, loading, memory, step, stock, training
from benchmarks.measuring import batch, build, parameter_bytes, rows, saved_bytes
from benchmarks.networks import CONTENDERS, REFERENCE, Size
from flowclf.recipe import load
from flowclf.recipe.building import build_data, build_model

TINY = Size(12, 4, (3, 8, 8), 4)
ARGUMENTS = ["--blocks", "12", "--width", "4", "--side", "8", "--batch", "2", "--threads", "1"]
OURS = ["flowclf, store", "flowclf, recompute", "flowclf, recompute, fixed point"]

# Peers warn of what torch has deprecated since.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_is_the_same_function(name: str) -> None:
    if not rows([name], [], "cpu")[0]:
        pytest.skip("needs the extra 'benchmarks'")
    network, reference = build(name, TINY), build(REFERENCE, TINY)
    x, labels = batch(TINY)
    assert on_grid(x)
    tolerance = 3e-2 if "bf16" in name else 1e-4 if "fixed" in name else 1e-5
    expected = reference.loss(x, labels)
    torch.testing.assert_close(network.loss(x.clone(), labels), expected, rtol=tolerance, atol=0)
    gradients = []
    for one in (network, reference):
        one.loss(x.clone(), labels).backward()
        gradients.append(accuracy.gradient(one, x, labels))
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 3 * tolerance
    with torch.no_grad():
        again = network.decode([value.clone() for value in network.encode(x.clone())])
    torch.testing.assert_close(again, x, atol=0.0 if "fixed" in name else tolerance, rtol=0)


def test_recomputed_activations_are_not_counted_and_parameters_neither() -> None:
    x, labels = batch(TINY)
    saved = {name: saved_bytes(build(name, TINY), x, labels) for name in (REFERENCE, *OURS)}
    assert saved["flowclf, recompute"] < saved["flowclf, store"] / 3
    assert saved["flowclf, recompute"] >= x.nbytes
    assert parameter_bytes(build(REFERENCE, TINY)) == parameter_bytes(build("FrEIA, bf16 autocast", TINY)) > 0


def test_each_command_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        (step.main, ["--pairs", "2", "--clock", "cpu"], "1.00x"),
        (memory.main, ["--depths", "6", "--deep", "12"], "12 blocks, three steps"),
        (accuracy.main, ["--steps", "1"], "0.0e+00"),
    ]
    for main, arguments, expected in commands:
        out = tmp_path / "table.md"
        main([*ARGUMENTS, *arguments, "--only", OURS[-1], "--out", str(out)])
        text = out.read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert f"torch {torch.__version__}" in text
        assert f"| {OURS[-1]} |" in text
        assert expected in text
        assert text in capsys.readouterr().out


def test_gradients_of_the_trained_network_survive_recomputing() -> None:
    errors = accuracy.trained_errors("mnist-ce", 64)
    for loss in accuracy.LOSSES:
        assert errors["store"][loss] < 1e-4
        assert errors["recompute"][loss] <= 1e-3
        assert errors["recompute, bf16 subnets"][loss] <= 1.2 * errors["store, bf16 subnets"][loss]
        # Or the ratio would compare nothing.
        assert errors["store, bf16 subnets"][loss] > 10 * errors["store"][loss]


def test_whole_trainings_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.md"
    training.main(["--share", "0.003", "--threads", "1", "--clock", "cpu", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert f"{load('mnist-ce').recipe.train.epochs} epochs of 2 steps" in text
    assert "with 0.003 of the images" in text
    assert "| FrEIA, the whole graph |" in text
    assert "| FrEIA, what the loss needs |" in text
    assert "| flowclf |" in text
    assert "1.00x" in text
    assert text in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--share"):
        training.main(["--share", "2"])


@pytest.mark.parametrize(("whole", "readout_width"), [(True, 0), (False, 32)])
def test_the_plain_training_is_one(tmp_path: Path, whole: bool, readout_width: int) -> None:
    changes = ["train.schedule.warmup_steps=0", "data.batch_size=32", "train.epochs=3", f"model.readout_width={readout_width}"]
    recipe = load("mnist-ce", changes).recipe
    plain = stock.Training(tmp_path, recipe, train=320, validation=40, whole=whole)
    assert (plain.readout is not None) == (readout_width > 0)
    used = [*plain.graph.parameters(), *(plain.readout.parameters() if plain.readout else [])]
    used = [parameter for parameter in used if parameter.requires_grad]
    x, labels = next(plain.images.batches(plain.images.train))
    assert x.shape == (32, 1, 28, 28)
    assert -1 <= float(x.min()) < float(x.max()) < 1
    assert labels.dtype == torch.int64
    plain.epoch()
    weights = [parameter.detach().clone() for parameter in used]
    plain.epoch()
    assert plain.rows[1]["cross_entropy_nats"] < plain.rows[0]["cross_entropy_nats"]
    assert all(not torch.equal(old, new) for old, new in zip(weights, used, strict=True))
    assert any(not torch.equal(own, mean) for own, mean in zip(plain.parameters, plain.average, strict=True))
    assert sum(1 for _ in (tmp_path / "metrics.jsonl").open(encoding="utf-8")) == 2
    ours = build_model(recipe, build_data(recipe)).parameter_count()
    count = sum(parameter.numel() for parameter in plain.parameters)
    assert 0.85 * ours < count < ours


def test_rows_that_are_not_there_are_refused() -> None:
    with pytest.raises(SystemExit, match="unknown rows"):
        rows(["flowclf, hope"], [], "cpu")
    with pytest.raises(SystemExit, match="multiple of 6"):
        Size(10)


def test_loading_is_compared_with_images_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCLF_CACHE", str(tmp_path / "cache"))
    write_images(tmp_path / "images", side=16)
    out = tmp_path / "table.md"
    sizes = ["--size", "16", "--batch", "4", "--steps", "2", "--workers", "1", "--threads", "1"]
    loading.main([str(tmp_path / "images"), *sizes, "--out", str(out)])
    rows = [line.split(" | ") for line in out.read_text().splitlines() if line.startswith("|")][2:]
    assert [row[:2] for row in rows] == [
        [f"| {network}", images] for network in ("none", "plain_cnn", "firevnet") for images in ("in memory", "decoded as used")
    ]
    assert all(float(row[2]) > 0 for row in rows)
