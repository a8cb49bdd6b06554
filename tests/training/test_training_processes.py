"""Several processes train as one does: the same weights, whoever begins and whoever goes on; and one that dies ends the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flowclf.cli.progress import speaks
from flowclf.errors import UsageError
from flowclf.recipe.loading import loads
from flowclf.run import sweep
from flowclf.training.processes import Processes, are_several, current, joined, synchronized_norms

PROGRAM = Path(__file__).with_name("train_together.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
RECIPE = """
name: together
seed: 0
data: {name: mnist, batch_size: 100, train_limit: 3000, validation: 500}
model: {name: plain_cnn, widths: [4, 8]}
loss: {name: cross_entropy}
train: {epochs: 200, checkpoint_every_steps: 5}
"""


def weights(out: Path) -> dict[str, Any]:
    (file,) = out.glob("state-*.pt")
    state = torch.load(file, weights_only=True)
    parts = {"classifier": state["classifier"], "loss": state["loss"], "average": state["ema"]["average"]}
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def train(out: Path, processes: int, steps: int, state: Path | None = None) -> dict[str, Any]:
    out.mkdir()
    arguments = [str(PROGRAM), str(out), str(steps), *([str(state)] if state else [])]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    subprocess.run([sys.executable, *launcher, *arguments], check=True, env=ENVIRONMENT, capture_output=True, timeout=120)
    return weights(out)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-8, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("alone") / "out", 1, 30)


def test_two_processes_train_as_one_does(alone: dict[str, Any], tmp_path: Path) -> None:
    """Batches of 24 in shares of 12, last ones of 2 in shares of 1; two adversaries, batch norms, class weights, clipping, EMA."""
    assert_same(train(tmp_path / "out", 2, 30), alone)


@pytest.mark.slow
def test_others_go_on_where_some_stopped(alone: dict[str, Any], tmp_path: Path) -> None:
    train(tmp_path / "two", 2, 11)
    assert_same(train(tmp_path / "three", 3, 30, tmp_path / "two"), alone)
    train(tmp_path / "three before", 3, 11)
    assert_same(train(tmp_path / "one", 1, 30, tmp_path / "three before"), alone)


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    command = [
        sys.executable,
        "-m",
        "flowclf",
        "recipe",
        "run",
        str(recipe),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--processes",
        "2",
    ]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for_state(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 90
    while not (out / "checkpoints" / "state.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(process: subprocess.Popen[str]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task").glob("*/children")
    return sorted(int(word) for file in found for word in file.read_text().split())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes by Linux's /proc")
def test_a_process_that_dies_ends_the_run_which_resumes_in_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, out)
    wait_for_state(process, out)
    os.kill(children(process)[-1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "process 1 of 2 was killed by SIGKILL, and the others were ended" in errors
    assert "flowclf recipe run --resume" in errors
    assert "Traceback" not in errors
    assert errors.count("run directory:") == 1
    state = (out / "checkpoints" / "state.json").read_text()
    command = [sys.executable, "-m", "flowclf", "recipe", "run", "--resume", str(out), "--device", "cpu"]
    resumed = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while (out / "checkpoints" / "state.json").read_text() == state:
        assert resumed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    resumed.terminate()
    assert "SIGTERM at step" in resumed.communicate(timeout=60)[1]


@pytest.mark.slow
def test_a_signal_saves_the_state_of_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, out)
    wait_for_state(process, out)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume with: flowclf recipe run --resume" in errors


def test_several_processes_say_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("name: mnist, ", "name: image_folder, root: absent, ").replace("train_limit: 3000, ", ""))
    command = [sys.executable, "-m", "flowclf", "recipe", "run", str(recipe), "--out", str(tmp_path / "out"), "--processes", "2"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    assert "absent" in done.stderr
    assert "--resume" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert are_several()
    assert not speaks()
    with pytest.raises(UsageError, match="--seeds: expected one process, found several"):
        sweep(loads(RECIPE), [0, 1])


# One process, without the others.


def test_one_process_is_alone() -> None:
    with joined("cpu") as processes:
        assert processes == current() == Processes(0, 1)
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(processes.sum(values), values)
    assert processes.sum(values) is not values
    assert (processes.any(True), processes.any(False)) == (True, False)
    norm = nn.BatchNorm1d(2)
    own = norm.forward = lambda x: x  # Somebody's own stays.
    for several in (processes, Processes(0, 2)):
        with synchronized_norms([norm], several):
            assert norm.forward is own
        assert norm.forward is own


def test_shares_of_three_processes_make_the_batch() -> None:
    shares = [torch.arange(7)[Processes(rank, 3).share].tolist() for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def test_norms_of_shares_are_those_of_the_batch() -> None:
    """With sums over processes that are, for one process, its own, a synchronised norm is torch's."""
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    for arguments in ({}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}):
        expected, norm = (nn.BatchNorm2d(3, **arguments).double() for _ in range(2))
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        results = [expected(inputs[0])]
        with synchronized_norms([norm], Processes(0, 2)):
            results.append(norm(inputs[1]))
        weight = torch.randn_like(x)
        for result in results:
            (result * weight).sum().backward()
        torch.testing.assert_close(*results)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
        torch.testing.assert_close(dict(norm.state_dict()), dict(expected.state_dict()))
        norm.eval()
        if expected.track_running_stats:
            torch.testing.assert_close(norm(x), expected.eval()(x))
