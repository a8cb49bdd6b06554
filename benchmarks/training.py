"""Time of a recipe's whole training, compared with the same written plainly in stock FrEIA: ``python -m benchmarks.training``.

It includes data, augmentation, metrics, validation and saved states. The trainings take turns, one epoch each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import stock
from benchmarks.measuring import machine, seconds, silence, table, write
from benchmarks.step import CLOCKS
from flowclf.recipe import load
from flowclf.recipe.building import build_trainer
from flowclf.recipe.run_folder import RunFolder
from flowclf.training import Trainer
from flowclf.training.state import save_state

TRAIN, VALIDATION = 55_000, 5_000
OURS, STOCK, WHOLE = "flowclf", "FrEIA, what the loss needs", "FrEIA, the whole graph"
LAUNCHED = "flowclf, without CUDA graphs"


class Ours:
    """Training as in ``flowclf recipe run``, epoch by epoch."""

    def __init__(self, folder: Path, recipe: Any, device: str = "cpu") -> None:
        self.folder = RunFolder(folder)
        self.trainer = build_trainer(recipe, torch.device(device))

    def epoch(self) -> None:
        """Train for an epoch, validate, write the metrics and the state."""
        self.trainer.run(on_state=self._save, until=self.trainer.step + self.trainer.steps_per_epoch)

    def _save(self, trainer: Trainer) -> None:
        save_state(self.folder.checkpoints, trainer)
        self.folder.write_metrics(trainer.rows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics, one per epoch."""
        return self.trainer.rows


def measure(
    recipe: str, share: float, clock: Callable[[], float], folder: Path, device: str = "cpu"
) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """Measure the seconds of building and of each epoch; also return the final validation errors and the steps per epoch.

    Args:
        recipe: name or file of the recipe.
        share: fraction of the images to use, for training and validation.
        clock: function that returns the time in seconds.
        folder: folder for files of the trainings.
        device: device to train on.
    """
    train, validation = max(2, round(share * TRAIN)), max(1, round(share * VALIDATION))
    limits = [f"data.validation={validation}", f"data.train_limit={train}"] if share < 1 else []
    loaded = load(recipe, limits).recipe
    made: dict[str, Any] = {}

    def plain(folder: Path, whole: bool) -> stock.Training:
        return stock.Training(folder, loaded, train, validation, whole, device)

    builders: dict[str, Callable[[], Any]] = {
        WHOLE: lambda: plain(folder / "whole", whole=True),
        STOCK: lambda: plain(folder / "stock", whole=False),
    }
    if device.startswith("cuda"):
        launched = load(recipe, [*limits, "train.cuda_graphs=never"]).recipe
        builders[LAUNCHED] = lambda: Ours(folder / "launched", launched, device)
    builders[OURS] = lambda: Ours(folder / OURS, loaded, device)

    def build(name: str) -> None:
        made[name] = builders[name]()

    times = {name: [seconds(partial(build, name), device, clock)] for name in builders}
    for epoch in range(loaded.train.epochs):
        for name in reversed(builders) if epoch % 2 else builders:
            times[name].append(seconds(made[name].epoch, device, clock))
    errors = {name: training.rows[-1]["validation.error"] for name, training in made.items()}
    return times, errors, made[OURS].trainer.steps_per_epoch


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--recipe", default="mnist-ce", help="firevnet on MNIST with cross-entropy, Adamax and moving average")
    parser.add_argument("--share", type=float, default=1.0, help="fraction of the images to use; the rest is extrapolated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu, with one thread, where other work shares the machine")
    parser.add_argument("--out", type=Path, help="the Markdown file to write; one in benchmarks/results by default")
    chosen = parser.parse_args(argv)
    if not 0 < chosen.share <= 1:
        raise SystemExit(f"--share must be above 0 and at most 1, found {chosen.share}")
    silence(chosen.threads)
    about_machine = machine(chosen.device)
    with tempfile.TemporaryDirectory() as folder:
        times, errors, steps = measure(chosen.recipe, chosen.share, CLOCKS[chosen.clock], Path(folder), chosen.device)
    whole = {name: built + sum(epochs) / chosen.share for name, (built, *epochs) in times.items()}
    speeds = [theirs / ours for theirs, ours in zip(times[WHOLE][1:], times[OURS][1:], strict=True)]
    body = [
        [
            name,
            f"{times[name][0]:.1f}",
            f"{statistics.median(times[name][1:]):.2f}",
            f"{whole[name]:.0f}",
            f"{whole[WHOLE] / whole[name]:.2f}x",
            f"{100 * errors[name]:.2f} %",
        ]
        for name in times
    ]
    unit = "processor time" if chosen.clock == "cpu" else "time"
    measured = "All of it was run" if chosen.share == 1 else f"Run with {chosen.share:g} of the images, the whole is extrapolated"
    about = (
        f"The training of the recipe {chosen.recipe}: {len(speeds)} epochs of {steps} steps, with data, augmentation, metrics, "
        f"validation and saved states, in seconds of {unit}. {measured}. Epochs took turns; FrEIA's whole graph took "
        f"{min(speeds):.2f} to {max(speeds):.2f} times as long for one. It gives logits and nuisances in each step, as a "
        "`GraphINN` does; in the other row the plain training stops where the logits are read, as flowclf does under "
        "cross-entropy. Both are plain trainings with FrEIA's stock nodes (`AllInOneBlock` with fixed rotations), the same "
        "subnets (and readout, if any), optimiser, schedule, clipping and moving average, without log-determinants, and "
        "torchvision's images in a DataLoader: see "
        f"`benchmarks/stock.py`.\n\n{about_machine}."
    )
    header = ["", "build, s", "epoch, s", "whole training, s", "speed", "validation error"]
    write("training", "Whole training", table(header, body), chosen, about)


if __name__ == "__main__":
    main()
