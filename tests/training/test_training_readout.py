"""Epochs of the readout alone, after the training: everything else stays, and they resume like any others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowclf import build_classifier
from flowclf.data import DataSet
from flowclf.errors import UsageError
from flowclf.losses import IndependenceCrossEntropy
from flowclf.training import Trainer, TrainSettings
from flowclf.training.state import load_state, save_state

EPOCHS, READOUT_EPOCHS, STEPS = 2, 3, 5
READOUT = {"epochs": READOUT_EPOCHS, "lr": 5e-3}
NODES = [
    "squeeze",
    "actnorm",
    {"affine_coupling": {"subnet": {"conv": {"width": 8, "normalization": "batch"}}}},
    {"logit_readout": {"subnet": {"residual": {"width": 8, "blocks": 1}}}},
    {"logit_coupling": {"subnet": {"conv": {"width": 8}}}},
    {"split_head": {"dct": True}},
]


def make_trainer(nodes: list[object] | None = None, ema: float | None = 0.9, readout: dict[str, float] = READOUT) -> Trainer:
    """Three classes of noisy images of growing brightness, hard to tell apart; five steps an epoch."""
    torch.manual_seed(0)
    labels = torch.arange(240) % 3
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 180, (240, 8, 8), generator=generator) + 25 * labels[:, None, None]
    data = DataSet.from_arrays(images.to(torch.uint8), labels, batch_size=40, validation=40, augment={"shift": 1}, seed=5)
    clf = build_classifier((1, 8, 8), nodes or NODES, classes=3)
    loss = IndependenceCrossEntropy(nuisance_hidden=[16], nuisance_steps=2)
    optimizer = {"name": "adamax", "lr": 5e-3, "weight_decay": 1e-4}
    return Trainer(clf, loss, data, TrainSettings(epochs=EPOCHS, ema=ema, precision="fp32", optimizer=optimizer, readout=readout))


def state(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.classifier.state_dict().items()}


@pytest.mark.parametrize("ema", [None, 0.9])
def test_only_the_readout_changes_and_what_it_says_gets_better(ema: float | None) -> None:
    trained = make_trainer(ema=ema, readout={"epochs": 0, "lr": 1e-3})
    trained.run()
    trained.finish()
    trainer = make_trainer(ema=ema)
    assert trainer.total_steps == (EPOCHS + READOUT_EPOCHS) * STEPS
    trainer.run()
    trainer.finish()
    before, after = state(trained), state(trainer)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    own = {id(parameter) for node in trainer._readouts for parameter in node.parameters()}
    readout = {name for name, parameter in trainer.classifier.named_parameters() if id(parameter) in own}
    assert changed
    assert changed <= readout
    first, second = trained.rows, trainer.rows[:EPOCHS]
    assert [row["train.loss"] for row in second] == [row["train.loss"] for row in first]
    rows = trainer.rows[EPOCHS:]
    assert [row["epoch"] for row in rows] == [3, 4, 5]
    assert not any("train.bits_per_dim" in row or "train.nuisance_cross_entropy_nats" in row for row in rows)
    assert rows[-1]["train.cross_entropy_nats"] < rows[0]["train.cross_entropy_nats"]
    assert rows[0]["learning_rate"] == pytest.approx(5e-3 * (1 - 4 / 15))
    assert all(parameter.requires_grad for parameter in trainer.classifier.parameters())
    assert not any(module.training for module in trainer.classifier.modules())


@pytest.mark.parametrize("step", [EPOCHS * STEPS - 2, EPOCHS * STEPS, EPOCHS * STEPS + 1, (EPOCHS + 1) * STEPS])
def test_they_resume_to_the_same_bits(tmp_path: Path, step: int) -> None:
    """Killed before the readout's epochs, where they begin, at their first step and between two of them."""
    whole = make_trainer()
    whole.run()
    first = make_trainer()
    first.run(until=step)
    save_state(tmp_path, first)
    second = make_trainer()
    load_state(tmp_path, second)
    assert second.step == step
    second.run()
    assert [row["train.loss"] for row in second.rows] == [row["train.loss"] for row in whole.rows]
    for trainer in (whole, second):
        trainer.finish()
    assert all(torch.equal(value, state(whole)[name]) for name, value in state(second).items())


def test_a_frozen_weight_stays_frozen() -> None:
    trainer = make_trainer()
    frozen = next(trainer._readouts[0].parameters())
    frozen.requires_grad_(False)
    kept = frozen.clone()
    trainer.run()
    assert torch.equal(frozen, kept)
    assert [parameter for parameter in trainer.classifier.parameters() if not parameter.requires_grad] == [frozen]


def test_without_a_readout_they_are_refused_before_anything_is_trained() -> None:
    nodes = [node for node in NODES if not (isinstance(node, dict) and "logit_readout" in node)]
    with pytest.raises(UsageError, match=r"train: readout: .* LogitReadout alone; this classifier has none"):
        make_trainer(nodes)
