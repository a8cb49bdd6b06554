"""Whole runs, of a tiny network on real files, through the command line's own process where signals matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import flowclf
from flowclf import checkpoint
from flowclf.cli.main import main
from flowclf.data import load as load_data
from flowclf.errors import CheckpointError, ChecksumError, NonFiniteLossError, UsageError
from flowclf.losses import Loss, LossTerms
from flowclf.recipe import loads
from flowclf.run import evaluate_model, plan, predict, resume, run
from flowclf.run.opening import open_data, open_model

RECIPE = """
name: tiny
seed: 3
data: {{name: arrays, path: {path}, batch_size: 32, bits: 4, validation: 0.2, augment: {{shift: 1}}}}
model:
  - squeeze
  - repeat: 2
    nodes: [actnorm, invertible_conv1x1, {{affine_coupling: {{subnet: {{conv: {{width: 8}}}}}}}}]
  - factor_out
  - actnorm
  - {{split_head: {{logit_mean: 9.0}}}}
loss: {{name: independence_cross_entropy, nuisance: {{hidden: [16], steps: 2}}}}
train:
  epochs: {epochs}
  optimizer: {{name: adam, lr: 0.01}}
  schedule: {{name: cosine}}
  checkpoint_every_steps: 3
  ema: 0.9
  precision: fp32
"""


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Two classes of 8 x 8 pictures: bright above or bright below."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    images = rng.integers(0, 60, (400, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 150
    path = tmp_path / "pictures.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


def recipe_text(arrays: Path, epochs: int = 2) -> str:
    return RECIPE.format(path=json.dumps(str(arrays)), epochs=epochs)


def without_seconds(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def read_rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_that_the_contract_names(arrays: Path, tmp_path: Path) -> None:
    text = recipe_text(arrays)
    result = run(loads(text), tmp_path / "out", "cpu")
    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "recipe.yaml", "resolved.yaml", "environment.json", "metrics.jsonl", "results.json", "checkpoints", "figures",
        "report.html",
    }  # fmt: skip
    assert (result.folder / "recipe.yaml").read_text() == text
    stored = json.loads((result.folder / "results.json").read_text())
    assert stored == result.results
    for key in (
        "test.error", "train.error", "test.bits_per_dim", "probe.test_error", "probe.mutual_information_nats",
        "metamers.logit_change_max", "numerics.inverse_error_max", "seconds.train", "seconds.total",
    ):  # fmt: skip
        assert isinstance(stored[key], float), key
    assert stored["test.error"] < 0.2
    assert stored["numerics.inverse_error_max"] < 2e-4
    assert [row["epoch"] for row in read_rows(result.folder)] == [1, 2]
    assert {path.suffix for path in (result.folder / "figures").iterdir()} == {".png", ".npz", ".json"}
    again = flowclf.load(result.folder / "checkpoints" / "final")
    assert again.class_names == ("0", "1")


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_last_and_the_best_weights_are_saved_and_those_to_keep_evaluated(arrays: Path, tmp_path: Path, keep: str) -> None:
    text = recipe_text(arrays, epochs=3).replace("steps: 2}", "steps: 2, delay: 0, warmup: 0}")
    result = run(loads(text, [f"train.keep={keep}"]), tmp_path / "out", "cpu")
    rows, epochs = read_rows(result.folder), {"last": 3, "best": result.results["train.best_epoch"]}
    other = {"last": "best", "best": "last"}[keep]
    assert result.results["train.kept_epoch"] == epochs[keep]
    scores = [(row["validation.error"], row["validation.cross_entropy_nats"]) for row in rows]
    assert epochs["best"] == 1 + scores.index(min(scores))
    for name in ("train.nuisance_cross_entropy_nats", "validation.nuisance_cross_entropy_nats"):
        assert result.results[name] == rows[epochs[keep] - 1][name] > 0
    for which, folder in ((keep, "final"), (other, other)):
        path = result.folder / "checkpoints" / folder
        description = json.loads((path / "model.json").read_text())
        assert (description["metadata"]["weights"], description["metadata"]["step"]) == (which, epochs[which] * rows[0]["step"])
        opened = open_model(str(path))
        assert opened.recipe is not None
        split = open_data(opened, None).validation
        x = opened.classifier.preprocessing.dequantize(split.inputs, torch.Generator().manual_seed(0))
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(opened.classifier.logits(x), split.labels).item()
        assert loss == pytest.approx(rows[epochs[which] - 1]["validation.cross_entropy_nats"], rel=0.1)


FIXED_POINT = """
name: tiny-exact
data: {{name: arrays, path: {path}, batch_size: 32, validation: 0.2, pad: 2}}
model:
  {{name: firevnet, blocks: 1, width: 8, coupling: additive, mixing: {mixing}, actnorm: false, dct: false, factor_out: true}}
loss: {{name: cross_entropy}}
train: {{epochs: 1, optimizer: {{name: adam, lr: 0.01}}, precision: bf16, activations: recompute, stream: fixed_point}}
"""


def test_a_run_in_fixed_point_inverts_bit_for_bit(arrays: Path, tmp_path: Path) -> None:
    text = FIXED_POINT.format(path=json.dumps(str(arrays)), mixing="permutation")
    result = run(loads(text), tmp_path / "out", "cpu")
    assert result.results["train.stream"] == "fixed_point"
    assert result.results["train.precision"] == "bf16"
    assert result.results["numerics.inverse_error_max"] == 0.0
    assert result.results["numerics.forward_inverse_error_max"] == 0.0
    assert 0 < result.results["numerics.grid_peak"] < 128
    assert result.results["metamers.logit_change_max"] == 0.0
    again = evaluate_model(str(result.folder), device="cpu")
    assert all(again[key] == result.results[key] for key in again if not key.startswith("seconds"))
    with pytest.raises(UsageError, match=r"node '2_invertible_conv1x1': a fixed-point stream allows additive couplings"):
        run(loads(FIXED_POINT.format(path=json.dumps(str(arrays)), mixing="lu")), tmp_path / "refused", "cpu")
    assert not (tmp_path / "refused").exists()


def test_the_resolved_recipe_repeats_the_run(arrays: Path, tmp_path: Path) -> None:
    first = run(loads(recipe_text(arrays)), tmp_path / "first", "cpu")
    second = run(loads((first.folder / "resolved.yaml").read_text()), tmp_path / "second", "cpu")
    one, two = (flowclf.load(result.folder / "checkpoints" / "final").state_dict() for result in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert without_seconds(read_rows(first.folder)) == without_seconds(read_rows(second.folder))


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "flowclf.cli.main", "recipe", "run", *arguments, "--device", "cpu", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (folder / "checkpoints" / "state.json").is_file():
        assert time.monotonic() < deadline, "no state was saved"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_run_resumes_to_the_same_bits(arrays: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    torch.set_num_threads(1)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe_text(arrays, epochs=20))
    folder = tmp_path / "out"
    process = start([str(recipe), "--out", str(folder)], folder)
    process.send_signal(sent)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not (folder / "results.json").exists()
    if sent != signal.SIGKILL:
        assert output == ""
        assert f"--resume {folder}" in errors
    state = json.loads((folder / "checkpoints" / "state.json").read_text())
    assert 0 < state["step"] < state["total_steps"]
    resumed = resume(folder, "cpu")
    whole = run(loads(recipe.read_text()), tmp_path / "whole", "cpu")
    one, two = (flowclf.load(result.folder / "checkpoints" / "final").state_dict() for result in (resumed, whole))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert without_seconds(read_rows(resumed.folder)) == without_seconds(read_rows(whole.folder))
    apart = {key for key in whole.results if resumed.results[key] != whole.results[key]}
    assert all(key.startswith("seconds.") for key in apart), apart


def test_a_state_that_was_changed_is_refused(arrays: Path, tmp_path: Path) -> None:
    folder = run(loads(recipe_text(arrays, epochs=1)), tmp_path / "out", "cpu").folder
    (state,) = (folder / "checkpoints").glob("state-*.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    (folder / "results.json").unlink()
    with pytest.raises(ChecksumError, match=r"expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        resume(folder, "cpu")


@pytest.mark.usefixtures("scratch_registries")
def test_a_loss_that_is_not_finite_keeps_the_last_good_state(arrays: Path, tmp_path: Path) -> None:
    @flowclf.registry.losses.register("explodes_at_step_five")
    class Explodes(Loss):
        def forward(self, encoding, labels):  # type: ignore[no-untyped-def]
            bad = torch.nan if self.progress > 0.5 else 0.0
            value = encoding.logits.square().mean() + bad
            return LossTerms(value, {"fuse": value.detach()})

    text = (
        recipe_text(arrays).split("loss:")[0]
        + "loss: {name: explodes_at_step_five}\ntrain: {epochs: 2, checkpoint_every_steps: 3}\n"
    )
    with pytest.raises(NonFiniteLossError, match=r"step \d+: fuse is nan"):
        run(loads(text), tmp_path / "out", "cpu")
    state = json.loads((tmp_path / "out" / "checkpoints" / "state.json").read_text())
    kept = torch.load(tmp_path / "out" / "checkpoints" / state["file"], weights_only=True)
    assert state["step"] >= 9
    assert all(torch.isfinite(value).all() for value in kept["classifier"].values() if value.is_floating_point())


def test_out_must_be_new_or_empty_and_nothing_is_left_when_the_recipe_cannot_run(arrays: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="expected a new or empty folder"):
        run(loads(recipe_text(arrays)), taken, "cpu")
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]
    broken = recipe_text(arrays).replace("- squeeze", "- {squeeze: {factor: 3}}")
    with pytest.raises(UsageError, match=r"1_squeeze.*divisible by 3.*\(1, 8, 8\)"):
        run(loads(broken), tmp_path / "never", "cpu")
    assert not (tmp_path / "never").exists()


def test_a_plan_builds_the_model_and_writes_nothing(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    data = plan(loads(recipe_text(arrays)), "cpu").data
    assert [row["kind"] for row in data["nodes"]][-1] == "split_head"
    assert data["parameters"] > 0
    assert data["adversary_parameters"] == (62 + 1) * 16 + 17 * 2
    assert data["steps"] == 2 * 9
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_run_evaluates_predicts_and_draws_metamers(
    arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(loads(recipe_text(arrays)), tmp_path / "out", "cpu").folder
    stored = json.loads((folder / "results.json").read_text())
    results = evaluate_model(str(folder), device="cpu")
    assert {key: value for key, value in results.items() if not key.startswith("seconds")} == {
        key: stored[key] for key in results if not key.startswith("seconds")
    }
    with np.load(arrays) as archive:
        pictures = dict(archive)
    files = []
    for label in (0, 1):
        index = int(np.flatnonzero(pictures["labels"] == label)[0])
        files.append(tmp_path / f"{label}.png")
        Image.fromarray(pictures["images"][index]).save(files[-1])
    answers = predict(str(folder), files, "cpu")
    assert [answer["class"] for answer in answers] == ["0", "1"]
    assert all(0.5 < answer["probability"] <= 1 for answer in answers)
    out = tmp_path / "met.png"
    arguments = ["metamers", str(folder), "--logits-of", str(files[0]), "--nuisance-of", str(files[1]), "--out", str(out)]
    assert main([*arguments, "--device", "cpu"]) == 0
    with Image.open(out) as image:
        assert image.size[0] > 100
    assert main(["metamers", str(folder), "--out", str(tmp_path / "grid.png"), "--device", "cpu"]) == 0
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size[0] > 500
    capsys.readouterr()
    assert main(["predict", str(folder), str(tmp_path / "none.png"), "--device", "cpu"]) == 2
    assert "none.png" in capsys.readouterr().err


PLAIN = """
name: judge
data: {{name: arrays, path: {path}, batch_size: 16, validation: 0.2}}
model: {{name: plain_cnn, widths: [4], hidden: 0}}
loss: {{name: cross_entropy}}
train: {{epochs: 3, optimizer: {{name: adam, lr: 0.01}}}}
"""


def test_a_plain_network_runs_and_judges_the_metamers_of_another_run(
    arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = run(loads(PLAIN.format(path=json.dumps(str(arrays)))), tmp_path / "judge", "cpu")
    assert judge.results["model.kind"] == "plain"
    assert judge.results["test.error"] == 0
    assert {path.name for path in judge.folder.iterdir()} >= {"results.json", "report.html", "figures"}
    text = recipe_text(arrays, epochs=1) + f"evaluate: {{oracle: {json.dumps(str(judge.folder))}}}\n"
    result = run(loads(text), tmp_path / "out", "cpu")
    shares = [result.results[f"metamers.oracle.{name}"] for name in ("donor", "logits", "neither")]
    assert sum(shares) == pytest.approx(1)
    assert result.results["metamers.oracle.test_error"] == 0
    assert "Metamers and the oracle" in (result.folder / "report.html").read_text(encoding="utf-8")
    # The recipe's oracle judges again, unless another is named.
    again = evaluate_model(str(result.folder), device="cpu")
    assert [again[f"metamers.oracle.{name}"] for name in ("donor", "logits", "neither")] == shares
    other = evaluate_model(str(result.folder), device="cpu", oracle=str(result.folder / "checkpoints" / "final"))
    test = load_data("arrays", path=str(arrays), validation=0.2).test
    own = checkpoint.load(result.folder / "checkpoints" / "final").logits_only()
    wrong = (own(test.inputs / 255).argmax(1) != test.labels).double().mean()
    assert other["metamers.oracle.test_error"] == pytest.approx(float(wrong))
    image = tmp_path / "0.png"
    Image.fromarray(np.load(arrays)["images"][0]).save(image)
    (answer,) = predict(str(judge.folder), [image], "cpu")
    assert set(answer) == {"file", "class", "probability", "probabilities"}
    assert main(["metamers", str(judge.folder)]) == main(["planes", str(judge.folder)]) == 2
    assert capsys.readouterr().err.count("expected an invertible classifier, found a plain network") == 2


def test_an_oracle_that_is_missing_or_does_not_fit_stops_a_run_before_it_begins(arrays: Path, tmp_path: Path) -> None:
    def with_oracle(path: Path) -> str:
        return recipe_text(arrays) + f"evaluate: {{oracle: {json.dumps(str(path))}}}\n"

    with pytest.raises(UsageError, match=r"evaluate\.oracle: there is no run directory or checkpoint at .*nowhere"):
        run(loads(with_oracle(tmp_path / "nowhere")), tmp_path / "out", "cpu")
    with pytest.raises(UsageError, match=r"evaluate\.oracle: there is no"):
        plan(loads(with_oracle(tmp_path / "nowhere")), "cpu")
    small = flowclf.plain_classifier((1, 4, 4), {"plain_cnn": {"widths": [2], "hidden": 0}}, 2)
    flowclf.save(small, tmp_path / "small")
    for begin in (lambda loaded: run(loaded, tmp_path / "out", "cpu"), lambda loaded: plan(loaded, "cpu")):
        with pytest.raises(UsageError, match=r"evaluate\.oracle: .* reads 2 classes of \(1, 4, 4\); expected 2 of \(1, 8, 8\)"):
            begin(loads(with_oracle(tmp_path / "small")))
        with pytest.raises(UsageError, match=r"evaluate\.oracle: an oracle, .* found a plain network"):
            begin(
                loads(PLAIN.format(path=json.dumps(str(arrays))) + f"evaluate: {{oracle: {json.dumps(str(tmp_path / 'small'))}}}")
            )
    assert not (tmp_path / "out").exists()


def test_data_that_could_not_be_evaluated_stop_a_run_before_it_begins(arrays: Path, tmp_path: Path) -> None:
    with np.load(arrays) as archive:
        images, labels = archive["images"], archive["labels"]
    path = tmp_path / "alike.npz"
    alike = {"test_images": images[labels == 1], "test_labels": labels[labels == 1]}
    np.savez(path, train_images=images, train_labels=labels, **alike)
    for begin in (lambda loaded: run(loaded, tmp_path / "out", "cpu"), lambda loaded: plan(loaded, "cpu")):
        with pytest.raises(UsageError, match="expected test data of at least two classes"):
            begin(loads(recipe_text(path)))
    assert not (tmp_path / "out").exists()


def test_a_folder_whose_classes_have_another_order_is_refused(arrays: Path, tmp_path: Path) -> None:
    folder = run(loads(recipe_text(arrays, epochs=1)), tmp_path / "out", "cpu").folder
    with np.load(arrays) as archive:
        images, labels = archive["images"], archive["labels"]
    for names in (("0", "1"), ("zero", "one")):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = tmp_path / "-".join(names) / names[label] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    assert evaluate_model(str(folder), str(tmp_path / "0-1"), device="cpu")["train.examples"] > 300
    with pytest.raises(UsageError, match=r"its folders, .* are \('one', 'zero'\); expected the model's classes, \('0', '1'\)"):
        evaluate_model(str(folder), str(tmp_path / "zero-one"), device="cpu")


def test_data_by_name_are_split_as_those_of_the_run(arrays: Path, tmp_path: Path) -> None:
    folder = run(loads(recipe_text(arrays, epochs=1)), tmp_path / "out", "cpu").folder
    opened = open_model(str(folder), "cpu")
    own, named = open_data(opened, None), open_data(opened, str(arrays))
    seen = {image.numpy().tobytes() for image in own.train.inputs}
    assert not any(image.numpy().tobytes() in seen for image in named.validation.inputs)


def test_a_plan_finds_what_would_stop_a_run(arrays: Path) -> None:
    text = PLAIN.format(path=json.dumps(str(arrays)))
    for setting in ("train.activations=recompute", "train.precision=bf16"):
        with pytest.raises(UsageError, match="expected an invertible classifier, found a plain network"):
            plan(loads(text, [setting]), "cpu")


def test_a_finished_run_is_not_resumed(arrays: Path, tmp_path: Path) -> None:
    folder = run(loads(recipe_text(arrays, epochs=1)), tmp_path / "out", "cpu").folder
    before = (folder / "results.json").read_bytes()
    with pytest.raises(UsageError, match="the run has finished"):
        resume(folder, "cpu")
    assert (folder / "results.json").read_bytes() == before


def test_pictures_that_fail_cost_no_results(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: 1 / 0)
    with pytest.warns(UserWarning, match="cannot be drawn"):
        folder = run(loads(recipe_text(arrays, epochs=1)), tmp_path / "out", "cpu").folder
    assert 0 <= json.loads((folder / "results.json").read_text())["test.error"] <= 1
    assert (folder / "report.html").is_file()


def test_a_model_that_could_not_be_saved_stops_a_run_before_it_begins(
    arrays: Path, tmp_path: Path, scratch_registries: None
) -> None:
    @flowclf.registry.nodes.register("moody")
    class Moody(flowclf.nodes.Permutation):
        """Is another node each time that it is built."""

        def __init__(self, dims_in: Any, dims_c: Any = None) -> None:
            super().__init__(dims_in, dims_c)
            self.mood = float(np.random.default_rng().random())

    loaded = loads(recipe_text(arrays).replace("  - factor_out\n", "  - moody\n  - factor_out\n"))
    for start_ in (lambda: plan(loaded, "cpu"), lambda: run(loaded, tmp_path / "out", "cpu")):
        with pytest.raises(CheckpointError, match=r"cannot be saved: node '8_moody', .*mood"):
            start_()
    assert not (tmp_path / "out").exists()


def test_a_recipe_from_another_machine_is_judged_by_another_oracle(arrays: Path, tmp_path: Path) -> None:
    judge = run(loads(PLAIN.format(path=json.dumps(str(arrays)))), tmp_path / "judge", "cpu").folder
    text = recipe_text(arrays, epochs=1) + f"evaluate: {{oracle: {json.dumps(str(judge))}}}\n"
    folder = run(loads(text), tmp_path / "out", "cpu").folder
    elsewhere = judge.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"evaluate\.oracle: there is no .*; --oracle names another"):
        evaluate_model(str(folder), device="cpu")
    assert "metamers.oracle.donor" in evaluate_model(str(folder), device="cpu", oracle=str(elsewhere))
