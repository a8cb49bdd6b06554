"""Reading of torch's data sets and loaders into memory, once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from flowclf.data.conversion import Kind, inputs_from
from flowclf.data.images import with_channels
from flowclf.errors import DataError, UsageError
from flowclf.progress import shown_progress

TorchData: TypeAlias = "Dataset[Any] | DataLoader[Any]"

MEMORY_GB = 4.0
"""Default limit on the size of what is read, in gigabytes (10^9 bytes) of uint8 images or float32 numbers."""
_CHUNK = 256
_READ_AGAIN = 8


class TorchContent(NamedTuple):
    """What a data set of torch holds.

    Attributes:
        inputs: as a :class:`~flowclf.data.records.Split` has them.
        labels: one per input, integers or strings, if they are labels at all.
        class_names: the data set's own ``classes``, as those of torchvision have them; None if it has none.
    """

    inputs: Tensor
    labels: list[Any]
    class_names: tuple[str, ...] | None


def read_torch(
    source: TorchData,
    *,
    kind: Kind | None = None,
    pixel_max: float | None = None,
    memory_gb: float = MEMORY_GB,
    where: str = "data",
) -> TorchContent:
    """Read pairs (input, label) from a data set or a loader, once; what augments at random is frozen, with a warning.

    Args:
        source: a data set, map-style or iterable, or a loader of one, whose batches are (inputs, labels). Inputs are tensors,
            arrays or PIL images, all of one shape; labels are class numbers or names.
        kind, pixel_max: as for :func:`~flowclf.data.conversion.inputs_from`.
        memory_gb: largest size of the data in memory, in gigabytes; twice as much is used while reading.
        where: name of the data in error messages.

    Raises:
        DataError: if what it yields is not pairs, an input is not valid or of another shape, there are none, or too many for the
            memory.
        UsageError: if a loader draws examples by a sampler that may repeat them or leave some out.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> read_torch(torch.utils.data.DataLoader(pairs, batch_size=2)).labels
        [0, 1, 2, 3, 4]
    """
    if not memory_gb > 0:
        raise UsageError(f"{where}: memory_gb: expected a positive number of gigabytes, found {memory_gb!r}")
    data: Any = source.dataset if isinstance(source, DataLoader) else source
    total = _length(source, where)
    parts: list[Tensor] = []
    labels: list[Any] = []
    size = 0
    with shown_progress() as progress, progress.task("reading data", total or 0) as task:
        for inputs, names in _chunks(source, where):
            parts.append(inputs_from(inputs, f"{where}: inputs", kind=kind, pixel_max=pixel_max))
            if parts[-1].shape[1:] != parts[0].shape[1:]:
                raise _shapes_differ(where, parts[0].shape[1:], parts[-1].shape[1:])
            labels += names
            size += parts[-1].nbytes
            expected = max(size, size * (total or 0) // len(labels))
            if expected > memory_gb * 1e9:
                raise DataError(
                    f"{where}: expected at most {memory_gb:g} GB in memory, found {'' if total else 'more than '}"
                    f"{expected / 1e9:.3g} GB; flowclf.data.DataSet.from_torch(..., memory_gb=...) has another limit"
                )
            task.advance(len(names))
    if not parts:
        raise DataError(f"{where}: expected at least one pair (input, label), found none")
    _warn_if_random(data, where)
    return TorchContent(torch.cat(parts), labels, _classes(data))


def _length(source: Any, where: str) -> int | None:
    """Number of examples that will be read, if it is known."""
    if isinstance(source, DataLoader):
        _check_sampler(source, where)
        if isinstance(source.sampler, SubsetRandomSampler):
            return len(source.sampler)
        source = source.dataset
    try:
        return len(source)
    except TypeError:
        return None


def _check_sampler(loader: DataLoader[Any], where: str) -> None:
    """Raise UsageError unless one pass over the loader has every example of its data set, or of a subset, once."""
    own: Any = loader.batch_sampler
    sampler: Any = loader.sampler
    if isinstance(loader.dataset, IterableDataset):
        return
    if own is not None and type(own) is not BatchSampler:
        sampler = own
    once = isinstance(sampler, SequentialSampler | SubsetRandomSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    )
    if not once:
        raise UsageError(
            f"{where}: a DataLoader with a {type(sampler).__name__} draws other examples in every epoch, but it would be read "
            "once; hand over its dataset instead (for rare classes, losses have class_weights)"
        )
    if loader.drop_last and loader.batch_size and (rest := len(sampler) % loader.batch_size):
        warnings.warn(f"{where}: drop_last of the DataLoader leaves {rest} of {len(sampler)} examples out", stacklevel=4)


def _chunks(source: Any, where: str) -> Iterator[tuple[NDArray[Any] | Tensor, list[Any]]]:
    """Inputs (N, ...) and labels, a few hundred examples at a time or as a loader has them."""
    batched = isinstance(source, DataLoader) and (source.batch_size is not None or source.batch_sampler is not None)
    if batched:
        for batch in source:
            inputs, labels = _pair(batch, where, "batches (inputs, labels)")
            listed = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else list(labels)
            if len(inputs) != len(listed):
                raise DataError(f"{where}: expected a label for each input, found {len(listed)} for {len(inputs)}")
            yield inputs, listed
        return
    indexed = not isinstance(source, IterableDataset | DataLoader)
    items: Iterable[Any] = (source[index] for index in range(len(source))) if indexed else source
    remaining = iter(items)
    while chunk := [_pair(item, where, "pairs (input, label)") for item in islice(remaining, _CHUNK)]:
        arrays = [_array(value) for value, _ in chunk]
        for array in arrays:
            if array.shape != arrays[0].shape:
                raise _shapes_differ(where, arrays[0].shape, array.shape)
        yield (
            np.stack(arrays),
            [label.tolist() if hasattr(label, "tolist") else label for _, label in chunk],
        )


def _shapes_differ(where: str, first: Sequence[int], other: Sequence[int]) -> DataError:
    return DataError(f"{where}: expected inputs of one shape, found {tuple(first)} and {tuple(other)}; resize or crop them")


def _pair(item: Any, where: str, expected: str) -> Any:
    if not isinstance(item, tuple | list) or len(item) != 2:
        length = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise DataError(f"{where}: expected {expected}, found a {type(item).__name__}{length}")
    return item


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, Image.Image):
        return np.asarray(with_channels(value, 1 if value.mode in ("1", "L", "LA", "I;16") else 3))
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray(value.float() if value.dtype == torch.bfloat16 else value)
    return np.asarray(value)


def _warn_if_random(data: Any, where: str) -> None:
    """Warn if the first examples are others when they are read twice."""
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        return
    for index in range(min(_READ_AGAIN, len(data))):
        first, second = (_array(_pair(data[index], where, "pairs (input, label)")[0]) for _ in range(2))
        if first.shape != second.shape or not np.array_equal(first, second):
            warnings.warn(
                f"{where}: an example is another each time it is read, so the data set augments at random; it is read once, and "
                "every epoch has that reading. DataSet.from_torch(..., augment={...}) augments in every epoch",
                stacklevel=4,
            )
            return


def _classes(data: Any) -> tuple[str, ...] | None:
    """The names of the classes, also those of the data set that a Subset is of."""
    while not hasattr(data, "classes") and hasattr(data, "dataset"):
        data = data.dataset
    names = getattr(data, "classes", None)
    listed = list(names) if isinstance(names, list | tuple) else []
    return tuple(listed) if listed and all(isinstance(name, str) for name in listed) else None
