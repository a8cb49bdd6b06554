"""Resuming: a killed training goes on to the same bits; broken and foreign states are refused and never run."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import resume_case
import torch
from resume_case import KILLED_AT, LAST, READY, SAVED_AT, make_trainer
from torch import Tensor, nn

from flowclf import build_classifier
from flowclf.errors import CheckpointError, ChecksumError, UsageError
from flowclf.losses import CrossEntropy
from flowclf.training import Trainer
from flowclf.training.state import load_state, save_state

OPTIONAL = ("seconds.train",)


def flattened(value: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of a state, by its place in it."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {place: value}
    return {key: leaf for name, item in items for key, leaf in flattened(item, f"{place}/{name}").items()}


def assert_same_state(trainer: Trainer, other: Trainer) -> None:
    states = [flattened(one.state_dict()) for one in (trainer, other)]
    assert states[0].keys() == states[1].keys()
    for place, value in states[0].items():
        if place.endswith(("seconds", *OPTIONAL)):
            continue
        if isinstance(value, Tensor):
            assert torch.equal(value, states[1][place]), place
            assert value.dtype == states[1][place].dtype, place
        else:
            assert value == states[1][place], place


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the training did not get there"
        time.sleep(0.02)


def test_twenty_steps_equal_seven_a_kill_and_thirteen(tmp_path: Path) -> None:
    """SIGKILL falls inside the second epoch, two steps after the state was written; nothing is different afterwards."""
    process = subprocess.Popen(
        [sys.executable, resume_case.__file__, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        whole = make_trainer()
        assert whole.steps_per_epoch == 6
        assert SAVED_AT % whole.steps_per_epoch
        whole.run(until=LAST)
        wait_for(tmp_path / READY, process)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "state.json").read_text())["step"] == SAVED_AT < KILLED_AT

    resumed = make_trainer(seed=99)
    assert not torch.equal(resumed.classifier.graph.module_list[2].matrix(), whole.classifier.graph.module_list[2].matrix())
    load_state(tmp_path, resumed)
    assert resumed.step == SAVED_AT
    assert [row["step"] for row in resumed.rows] == [6]
    rows = resumed.run(until=LAST)
    assert resumed.step == LAST
    assert_same_state(resumed, whole)
    assert [row["step"] for row in rows] == [6, 12, 18]
    for row, other in zip(rows, whole.rows, strict=True):
        assert {key: value for key, value in row.items() if key not in OPTIONAL} == {
            key: value for key, value in other.items() if key not in OPTIONAL
        }
        assert {"train.loss", "train.cross_entropy_nats_2", "validation.error", "train.gradient_norm"} <= row.keys()
    places = flattened(whole.state_dict())
    for player in ("/classifier/", "/loss/", "/optimizer/state/", "/adversary_optimizer/state/", "/ema/average/"):
        assert any(place.startswith(player) for place in places)
    resumed.finish()
    whole.finish()
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(resumed.classifier.log_prob(x), whole.classifier.log_prob(x))


def test_stopping_anywhere_changes_nothing(tmp_path: Path) -> None:
    """At the end of an epoch, and on the last step before it."""
    whole = make_trainer()
    whole.run(until=8)
    for step in (5, 6):
        first = make_trainer()
        first.run(until=step)
        save_state(tmp_path, first)
        second = make_trainer(seed=step)
        load_state(tmp_path, second)
        second.run(until=8)
        assert_same_state(second, whole)


def test_one_state_is_kept_and_named(tmp_path: Path) -> None:
    trainer = make_trainer()
    for step in (2, 3):
        trainer.run(until=step)
        save_state(tmp_path, trainer)
    pointer = json.loads((tmp_path / "state.json").read_text())
    assert sorted(os.listdir(tmp_path)) == [pointer["file"], "state.json"]
    assert pointer["file"] == f"state-00000003-{pointer['sha256'][:8]}.pt"
    assert (pointer["step"], pointer["total_steps"]) == (3, 24)
    assert pointer["sha256"] == hashlib.sha256((tmp_path / pointer["file"]).read_bytes()).hexdigest()


def test_a_save_that_fails_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    trainer.run(until=2)
    save_state(tmp_path, trainer)

    def full(*arguments: Any) -> None:
        raise OSError("no space left on device")

    trainer.run(until=3)
    for name in ("torch.save", "flowclf.training.state.write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(OSError, match="no space"):
                save_state(tmp_path, trainer)
        other = make_trainer()
        load_state(tmp_path, other)
        assert other.step == 2


def test_no_state_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no state to resume from: state\.json is missing"):
        load_state(tmp_path, make_trainer())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trainer = make_trainer()
    trainer.run(until=1)
    save_state(tmp_path, trainer)
    return tmp_path


def state_file(folder: Path) -> Path:
    (file,) = folder.glob("state-00000001-*.pt")
    return file


def set_state(folder: Path, content: bytes) -> None:
    state_file(folder).write_bytes(content)
    pointer = json.loads((folder / "state.json").read_text())
    pointer["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "state.json").write_text(json.dumps(pointer))


def test_a_broken_state_is_found(folder: Path) -> None:
    trainer = make_trainer()
    file = state_file(folder)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ChecksumError, match=r"state-00000001-\w{8}\.pt"):
        load_state(folder, trainer)
    for broken in (content[: len(content) // 2], b"", b"junk"):
        set_state(folder, broken)
        with pytest.raises(CheckpointError, match=r"state-00000001-\w{8}\.pt"):
            load_state(folder, trainer)
    for pointer in ("", "[]", '{"file": "state-00000001.pt"}', "junk"):
        (folder / "state.json").write_text(pointer)
        with pytest.raises(CheckpointError, match=r"state\.json"):
            load_state(folder, trainer)


class Payload:
    """What a pickle can do to whoever opens it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_nothing_in_a_state_runs(folder: Path) -> None:
    marker, file = folder / "it ran", folder / "payload.pt"
    torch.save({"step": Payload(marker)}, file)
    set_state(folder, file.read_bytes())
    with pytest.raises(CheckpointError):
        load_state(folder, make_trainer())
    assert not marker.exists()


def test_a_state_lies_in_its_folder(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    pointer = json.loads((folder / "state.json").read_text())
    (inner / "state.json").write_text(json.dumps({**pointer, "file": "../state-00000001.pt"}))
    with pytest.raises(Exception, match=r"inner/state-00000001\.pt"):
        load_state(inner, make_trainer())


def test_the_state_of_another_training_is_refused(folder: Path) -> None:
    trainer = make_trainer()
    without_adversary = Trainer(trainer.classifier, CrossEntropy(), trainer.data, trainer.settings)
    smaller = build_classifier((1, 8, 8), ["squeeze", "actnorm", "split_head"], classes=3)
    other_network = Trainer(smaller, CrossEntropy(), trainer.data, trainer.settings)
    for other in (without_adversary, other_network):
        with pytest.raises(CheckpointError, match="does not fit"):
            load_state(folder, other)


def test_the_training_that_is_killed_uses_what_resuming_must_restore() -> None:
    """Running statistics, draws from the global random state, and an average that is not the weights."""
    trainer = make_trainer()
    kinds = {type(module) for module in trainer.classifier.modules()}
    assert {nn.BatchNorm2d, nn.Dropout} <= kinds
    state = torch.get_rng_state()
    trainer.run(until=2)
    assert not torch.equal(torch.get_rng_state(), state)
    assert trainer.ema is not None
    name = "graph.module_list.1.bias"
    assert not torch.equal(trainer.ema.average[name], trainer.classifier.state_dict()[name])
