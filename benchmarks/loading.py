"""How far the decoding of image files keeps ahead of a training: ``python -m benchmarks.loading FOLDER``.

The folder has the layout of the data set ``image_folder``. Each training is measured over some steps after the first few, with
images in memory and with images that worker processes decode as they are used; and the decoding is measured alone.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine, silence, table, write
from flowclf.architectures.firevnet import firevnet
from flowclf.classifier import Classifier, build_classifier, plain_classifier
from flowclf.data import Batch, DataSet, load
from flowclf.losses import CrossEntropy
from flowclf.training import Trainer

FIRST = 5
NETWORKS = ("plain_cnn", "firevnet")


def classifier(network: str, data: DataSet) -> Classifier:
    """The small network of this name for the images of a data set."""
    if network == "plain_cnn":
        return plain_classifier(data.image_shape, "plain_cnn", data.classes)
    return build_classifier(data.image_shape, firevnet(stages=3, blocks=2, width=32), data.classes)


def loading(data: DataSet, steps: int) -> float:
    """Images per second that are decoded and augmented while nothing else happens."""
    batches = data.train_batches(0)
    list(islice(batches, FIRST))
    began, images = time.perf_counter(), 0
    for batch in islice(batches, steps):
        images += len(batch.labels)
    return images / (time.perf_counter() - began)


def training(network: str, data: DataSet, steps: int) -> tuple[float, float]:
    """Images per second of a training, and the fraction of its time in which it waits for images."""
    trainer = Trainer(classifier(network, data), CrossEntropy(), data, {"epochs": 1, "precision": "fp32"})
    waits: list[tuple[float, float]] = []
    original = DataSet.train_batches

    def timed(self: DataSet, *arguments: Any, **options: Any) -> Iterator[Batch]:
        batches = original(self, *arguments, **options)
        while True:
            began = time.perf_counter()
            if (batch := next(batches, None)) is None:
                return
            waits.append((began, time.perf_counter()))
            yield batch

    DataSet.train_batches = timed  # type: ignore[method-assign]
    try:
        trainer.run(until=min(FIRST + steps + 1, trainer.total_steps))
    finally:
        DataSet.train_batches = original  # type: ignore[method-assign]
    # The last batch ends the measurement: its own step is not part of it.
    measured, seconds = waits[FIRST:-1], waits[-1][0] - waits[FIRST][0]
    return len(measured) * data.batch_size / seconds, sum(end - began for began, end in measured) / seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", help="images, one folder per class")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--crop", action="store_true", help="random resized crops of the files instead of shifts")
    parser.add_argument("--out", type=Path, help="the Markdown file to write; one in benchmarks/results by default")
    chosen = parser.parse_args(argv)
    silence(chosen.threads)
    augment = {"flip": True, **({"resized_crop": 0.3} if chosen.crop else {"crop": 0.125})}
    shared: dict[str, Any] = {"root": chosen.folder, "size": chosen.size, "channels": 3, "batch_size": chosen.batch}
    sets = {
        name: load("image_folder", **shared, validation=0.1, augment=augment, workers=chosen.workers, memory_gb=memory_gb)
        for name, memory_gb in (("in memory", 1e3), ("decoded as used", 0.0))
    }
    body = [["none", name, f"{loading(data, chosen.steps):.0f}", ""] for name, data in sets.items()]
    for network in NETWORKS:
        for name, data in sets.items():
            speed, waiting = training(network, data, chosen.steps)
            body.append([network, name, f"{speed:.0f}", f"{100 * waiting:.1f} %"])
    about = (
        f"Images per second in {chosen.steps} steps, and the fraction of the time in which the training waits for images: decoded "
        f"once and held in memory, or as they are used, by {chosen.workers} worker processes, which share the training's cores. "
        f"{chosen.size} x {chosen.size} pixels, batches of {chosen.batch}, {'resized crop' if chosen.crop else 'crop'} and flip. "
        "Without a network, batches are only made.\n\n"
        f"{machine()}."
    )
    write("loading", "Loading", table(["network", "images", "images/s", "waiting"], body), chosen, about)


if __name__ == "__main__":
    main()
