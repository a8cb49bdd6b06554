"""Conversion of a user's arrays and tensors to splits: layouts, types, class names, and a test part if there is none.

``where`` is the user's key or argument, which error messages name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowclf.data.records import RawData, Split
from flowclf.data.seeding import generator
from flowclf.errors import DataError, UsageError

_COLOURS = (1, 3)


def check_fraction(value: Any, where: str) -> None:
    """Raise UsageError unless the value is a number greater than 0 and less than 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UsageError(f"{where}: expected a fraction greater than 0 and less than 1, found {value!r}")


def check_positive(value: Any, where: str) -> None:
    """Raise UsageError unless the value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{where}: expected an integer of at least 1, found {value!r}")


def inputs_from(values: Any, where: str) -> Tensor:
    """Copy images to uint8 (N, C, H, W), or vectors to float32 (N, D).

    Images are uint8, 0..255: (N, H, W) grey; (N, H, W, C) or (N, C, H, W) with C = 1 or 3. Vectors have any floating-point type.

    Raises:
        DataError: if the type or shape is another, there are no elements, both or neither of the second and the last axis may be
            the channels, or a vector is not finite.
    """
    array = _array(values)
    found = f"found {array.dtype} of shape {array.shape}"
    if not array.size:
        raise DataError(f"{where}: expected at least one image or vector, {found}")
    if array.ndim == 2 and np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):
            vectors = torch.from_numpy(np.array(array, dtype=np.float32))
        if not vectors.isfinite().all():
            raise DataError(f"{where}: expected finite float32 values, found NaN or infinity")
        return vectors
    if array.ndim not in (3, 4) or array.dtype != np.uint8:
        raise DataError(
            f"{where}: expected uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), 0..255, "
            f"or floating point vectors (N, D), {found}"
        )
    if array.ndim == 3:
        array = array[:, None]
    else:
        first, last = array.shape[1] in _COLOURS, array.shape[3] in _COLOURS
        if first == last:
            problem = "both are" if first else "neither is"
            raise DataError(f"{where}: expected 1 or 3 channels on the second or on the last axis, but {problem}: {found}")
        if last:
            array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.array(array, order="C"))


def labels_from(values: Any, where: str, length: int) -> Tensor:
    """Copy class numbers to int64 (N,).

    Raises:
        DataError: if the type is not an integer, the shape is not (length,), or a number is outside 0..2^31-1.
    """
    array = _array(values)
    if array.shape != (length,) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{where}: expected integers of shape ({length},), one per input, found {array.dtype} of shape {array.shape}"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= 2**31:
        raise DataError(f"{where}: expected class numbers from 0 up, found {low} to {high}")
    return torch.from_numpy(np.array(array, dtype=np.int64))


def split_by_class(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw indices of a training and a test part, both in random order; test is a fraction of each class, at least one example.

    Raises:
        DataError: if a class has a single example.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "test"))
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels):
        members = order[labels[order] == label]
        if len(members) < 2:
            raise DataError(f"class {int(label)}: expected at least 2 examples, one of them to test on, found {len(members)}")
        test[members[: max(1, int(fraction * len(members)))]] = True
    return order[~test[order]], order[test[order]]


def raw_data_from(
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    class_names: Sequence[str] | None,
    *,
    test_fraction: float,
    test_seed: int = 0,
) -> RawData:
    """Convert arrays or tensors to raw data; without a test part, examples of the training part become one.

    Args:
        train: inputs (see :func:`inputs_from`) and labels (see :func:`labels_from`), by their names in error messages.
        test: likewise; the values may be None.
        class_names: one name per class; None uses the class numbers.
        test_fraction: fraction of each class that becomes test data, in (0, 1), if there are no test inputs.
        test_seed: random seed for that choice.

    Raises:
        DataError: if an array is not valid, or only one of test inputs and test labels is given.
        UsageError: if the fraction is outside (0, 1).
    """
    train_split = _split(train)
    given = [name for name, value in test.items() if value is not None]
    if len(given) == 1:
        missing = next(name for name in test if name not in given)
        raise DataError(f"expected {' and '.join(test)} together, found {given[0]} without {missing}")
    if given:
        test_split = _split(test)
    else:
        check_fraction(test_fraction, "test_fraction")
        kept, held_out = split_by_class(train_split.labels, test_fraction, test_seed)
        train_split, test_split = train_split.take(kept), train_split.take(held_out)
    if class_names is None:
        numbers = torch.unique(train_split.labels).tolist()
        if numbers != list(range(len(numbers))):
            shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
            raise DataError(f"{list(train)[1]}: expected every class number from 0 to the highest, found only {shown}")
        class_names = numbers
    return RawData(train_split, test_split, tuple(map(str, class_names)))


def _split(named: Mapping[str, Any]) -> Split:
    (inputs_name, values), (labels_name, numbers) = named.items()
    inputs = inputs_from(values, inputs_name)
    return Split(inputs, labels_from(numbers, labels_name, len(inputs)))


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"expected an array, found a {type(values).__name__} whose parts have several lengths") from error
