"""The training that is killed in test_training_resume, and the script that is killed. Not tests themselves.

python resume_case.py FOLDER trains, saves its state after step 7 and at no other, goes on to step 9, and then waits.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from flowclf import build_classifier
from flowclf.data import DataSet
from flowclf.losses import CrossEntropy, IndependenceCrossEntropy
from flowclf.training import Trainer
from flowclf.training.state import save_state

SAVED_AT, KILLED_AT, LAST = 7, 9, 20
READY = "trained on"


def make_trainer(seed: int = 0) -> Trainer:
    """Six steps per epoch, four epochs, both adversaries, an average, dropout in a subnet, augmentation."""
    torch.manual_seed(seed)
    labels = torch.arange(300) % 3
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 100, (300, 8, 8), generator=generator) + 70 * labels[:, None, None]
    data = DataSet.from_arrays(images.to(torch.uint8), labels, batch_size=40, validation=30, augment={"shift": 1}, seed=5)
    block = ["actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": noisy_subnet}}]
    nodes = ["squeeze", {"repeat": 2, "nodes": block}, "split_head"]
    classifier = build_classifier((1, 8, 8), nodes, classes=3)
    loss = IndependenceCrossEntropy(nuisance={"hidden": [16], "steps": 2}) + 0.5 * CrossEntropy()
    settings = {
        "epochs": 4,
        "optimizer": {"name": "adamax", "lr": 2e-3, "weight_decay": 1e-4},
        "schedule": {"name": "one_cycle"},
        "gradient_clip": 5.0,
        "ema": 0.9,
        "precision": "fp32",
        "checkpoint_every_steps": SAVED_AT,
    }
    return Trainer(classifier, loss, data, settings)


def noisy_subnet(channels_in: int, channels_out: int) -> torch.nn.Module:
    """A subnet that draws from the global random state and keeps running statistics."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels_in, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Dropout(0.1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, channels_out, 3, padding=1),
    )


def main(folder: Path) -> None:
    """Train until somebody kills the process."""
    torch.set_num_threads(1)

    def on_state(trainer: Trainer) -> None:
        if trainer.step == SAVED_AT:
            save_state(folder, trainer)

    trainer = make_trainer()

    def stop() -> bool:
        if trainer.step == KILLED_AT:
            (folder / READY).touch()
            time.sleep(600)
        return False

    trainer.run(on_state=on_state, stop=stop)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
