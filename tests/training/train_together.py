"""Train a small classifier with however many processes started this, in float64; the first saves the weights.

torchrun --nproc-per-node N train_together.py OUT STEPS [STATE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from flowclf import build_classifier
from flowclf.data import DataSet
from flowclf.losses import IndependenceCrossEntropy
from flowclf.training import Trainer
from flowclf.training.processes import joined
from flowclf.training.state import load_state, save_state


def train(out: Path, steps: int, state: Path | None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (200, 8, 8), generator=generator, dtype=torch.uint8)
    data = DataSet.from_arrays(images, torch.arange(200) % 4, batch_size=24, validation=30, augment={"shift": 1})
    conv = {"conv": {"width": 6, "normalization": "batch"}}
    block = ["actnorm", "invertible_conv1x1", {"affine_coupling": {"subnet": conv}}]
    clf = build_classifier((1, 8, 8), ["squeeze", {"repeat": 2, "nodes": block}, "squeeze", *block, "split_head"], classes=4)
    clf.double()
    loss = IndependenceCrossEntropy(
        nuisance={"network": "both", "hidden": [16], "width": 4, "steps": 2, "warmup": 0.0},
        classification={"class_weights": "balanced"},
    )
    with joined("cpu") as processes:
        trainer = Trainer(clf, loss.double(), data, {"epochs": 10, "ema": 0.9, "gradient_clip": 1.0, "precision": "fp32"})
        if state is not None:
            load_state(state, trainer)
        trainer.run(until=steps)
        if processes.first:
            save_state(out, trainer)


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
