"""Training: one loop for every loss, optimisers and schedules by name, and states that resume to the same bits."""

from __future__ import annotations

from typing import Any

from flowclf.classifier import Classifier
from flowclf.data import DataSet
from flowclf.host_memory import keep_freed_memory as keep
from flowclf.losses import Loss
from flowclf.training.loop import Row, Trainer, TrainSettings
from flowclf.training.progress import Progress, SilentProgress

__all__ = ["Progress", "Row", "SilentProgress", "TrainSettings", "Trainer", "fit"]


def fit(
    classifier: Classifier,
    loss: Loss,
    data: DataSet,
    *,
    progress: Progress | None = None,
    keep_freed_memory: bool = False,
    **settings: Any,
) -> list[Row]:
    """Train a classifier in place, as a recipe does, and leave it in eval mode.

    Args:
        classifier: composed in code or loaded; its ActNorms are initialised from the data unless they are already.
        loss: bound to the classifier, or bound now.
        data: as ``flowclf.data.load`` gives it.
        progress: receives steps and epochs; silent by default.
        keep_freed_memory: let the process keep up to 64 MiB of freed memory from now on, which is faster where activations are
            recomputed; recipes do.
        settings: fields of :class:`TrainSettings`, e.g. ``epochs=5``.

    Returns:
        The history: a row of metrics for each epoch.

    Raises:
        NonFiniteLossError: a term of the loss or the gradient is not finite; on a GPU the weights are lost by then.
        UsageError: data, loss or settings that do not fit.
    """
    if keep_freed_memory:
        keep()
    trainer = Trainer(classifier, loss, data, TrainSettings(**settings))
    rows = trainer.run(progress=progress)
    trainer.finish()
    return rows
