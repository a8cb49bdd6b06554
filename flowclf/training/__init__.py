"""Training: one loop for every loss, optimisers and schedules by name, and states that resume with bit-identical results."""

from __future__ import annotations

from typing import Any

from flowclf.classifier import Classifier
from flowclf.data import DataSet
from flowclf.data.torch_reading import TorchData
from flowclf.host_memory import keep_freed_memory as keep
from flowclf.losses import Loss
from flowclf.settings import TrainSettings
from flowclf.training.loop import Row, Trainer
from flowclf.training.progress import Progress, SilentProgress
from flowclf.training.torch_data import is_torch_data, training_data

__all__ = ["Progress", "Row", "SilentProgress", "TrainSettings", "Trainer", "fit"]


def fit(
    classifier: Classifier,
    loss: Loss,
    data: DataSet | TorchData,
    *,
    progress: Progress | None = None,
    keep_freed_memory: bool = False,
    **settings: Any,
) -> list[Row]:
    """Train a classifier in place, as a recipe does, and leave it in eval mode.

    Args:
        classifier: composed in code or loaded; its ActNorms are initialised from the data unless they are already.
        loss: bound to the classifier, or not bound yet.
        data: as ``flowclf.data.load`` returns it; or a ``torch.utils.data.Dataset`` or ``DataLoader``, which is read into memory
            once, as :meth:`flowclf.data.DataSet.from_torch` does. A tenth of it is the validation part.
        progress: receives steps and epochs; by default nothing is shown.
        keep_freed_memory: let the process keep up to 64 MiB of freed memory from now on, as recipes do; faster where activations
            are recomputed.
        settings: the keys of a recipe's section ``train``, with the same defaults (:class:`flowclf.settings.TrainSettings`), e.g.
            ``epochs=5, optimizer={"name": "adam", "lr": 2e-3}``.

    Returns:
        The history: a row of metrics per epoch.

    Raises:
        NonFiniteLossError: if a term of the loss or the gradient is not finite; on a GPU the weights are lost by then.
        DataError: if a data set of torch cannot be read, or is larger than 4 GB in memory.
        UsageError: if a setting is unknown or not valid, or data, loss and classifier do not fit together.
    """
    if is_torch_data(data) and isinstance(classifier, Classifier):
        data = training_data(classifier, data, progress)
    if keep_freed_memory:
        keep()
    trainer = Trainer(classifier, loss, data, settings)  # type: ignore[arg-type]
    trainer.run(progress=progress)
    trainer.finish()
    return trainer.rows
