"""Training data from torch's data sets and loaders."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TypeGuard

from torch.utils.data import DataLoader, Dataset

from flowclf.classifier import Classifier
from flowclf.data import DataSet, RawData, Split
from flowclf.data.conversion import Kind, labels_from, strings_in
from flowclf.data.torch_reading import TorchData, read_torch
from flowclf.errors import UsageError
from flowclf.progress import Progress, progress_shown_by

_KINDS: dict[int, Kind] = {1: "vectors", 2: "signals", 3: "images"}
_VALIDATION = 0.1


def is_torch_data(data: object) -> TypeGuard[TorchData]:
    """Whether data are a data set or a loader of torch."""
    return isinstance(data, Dataset | DataLoader)


def training_data(classifier: Classifier, source: TorchData, progress: Progress | None = None) -> DataSet:
    """Read the data to train a classifier on: a tenth is held out for validation, and there is no test part.

    Args:
        classifier: its inputs say whether the data are images, vectors or signals.
        source: a data set, or a loader, whose batch size is that of the training; by default 128.
        progress: receives the progress of reading.

    Raises:
        DataError: if the data are not valid, or too many for the memory, as in :meth:`flowclf.data.DataSet.from_torch`.
        UsageError: if the data name other classes than the classifier, or a loader may draw an example twice.
    """
    with contextlib.nullcontext() if progress is None else progress_shown_by(lambda: contextlib.nullcontext(progress)):
        read = read_torch(source, kind=_KINDS[len(classifier.preprocessing.image_shape)])
    names, words = classifier.class_names, strings_in(read.labels)
    if names == tuple(map(str, range(classifier.classes))):
        names = read.class_names or tuple(sorted(set(words or ()))) or names
    elif not words and read.class_names not in (None, names):
        raise UsageError(
            f"data: expected the classes of the classifier, {', '.join(names)}; found {', '.join(read.class_names or ())}"
        )
    split = Split(read.inputs, labels_from(read.labels, "data: labels", len(read.inputs), names))
    batch_size = (source.batch_size if isinstance(source, DataLoader) else None) or 128
    # Nothing is tested in a training; raw data always have a test part.
    raw = RawData(split, split.head(1), names)
    return replace(DataSet.from_raw(raw, name="data", batch_size=batch_size, validation=_VALIDATION), test=split.head(0))
