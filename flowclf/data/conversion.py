"""Conversion of a user's arrays and tensors to splits: layouts, types, class names, and a test part if there is none.

Error messages refer to a value by the user's key or argument, which the caller passes as ``where``.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    Images are uint8, 0..255: (N, H, W) grey; (N, H, W, C) or (N, C, H, W) with C = 1 or 3. The channel axis is the one
    of size 1 or 3; it is an error if both the second and the last axis are. Vectors (N, D) may have any floating-point
    type.

    Raises:
        DataError: if the type or shape is another, there are no elements, the channel axis is missing or ambiguous, or a
            vector is not finite.
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
    """Draw indices of a training and a test part, both in random order; test is a fraction of each class, rounded down.

    The split is by class, so that no class loses all of its training examples.

    Raises:
        UsageError: if no class is large enough to provide a test example.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "test"))
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels):
        members = order[labels[order] == label]
        test[members[: int(fraction * len(members))]] = True
    if not test.any():
        raise UsageError(
            f"test_fraction: {fraction} of each class is less than one example; "
            f"the largest class has {int(labels.bincount().max())}"
        )
    return order[~test[order]], order[test[order]]


def raw_data_from(
    train_inputs: Any,
    train_labels: Any,
    test_inputs: Any,
    test_labels: Any,
    class_names: Sequence[str] | None,
    *,
    names: tuple[str, str, str, str],
    test_fraction: float,
    test_seed: int = 0,
) -> RawData:
    """Convert arrays or tensors to raw data; without test inputs, part of the training set becomes the test set.

    Args:
        train_inputs: see :func:`inputs_from`.
        train_labels: see :func:`labels_from`.
        test_inputs: like the training inputs, or None.
        test_labels: like the training labels, or None.
        class_names: one name per class; None uses the class numbers.
        names: names of the four arrays in error messages.
        test_fraction: fraction of each class that becomes test data, in (0, 1), if there are no test inputs.
        test_seed: random seed for that choice.

    Raises:
        DataError: if an array is invalid, or only one of test inputs and test labels is given.
        UsageError: if the fraction is outside (0, 1).
    """
    inputs = inputs_from(train_inputs, names[0])
    train = Split(inputs, labels_from(train_labels, names[1], len(inputs)))
    if (test_inputs is None) != (test_labels is None):
        given, missing = (names[3], names[2]) if test_inputs is None else (names[2], names[3])
        raise DataError(f"expected {names[2]} and {names[3]} together, found {given} without {missing}")
    if test_inputs is None:
        check_fraction(test_fraction, "test_fraction")
        kept, held_out = split_by_class(train.labels, test_fraction, test_seed)
        test = Split(train.inputs[held_out], train.labels[held_out])
        train = Split(train.inputs[kept], train.labels[kept])
    else:
        inputs = inputs_from(test_inputs, names[2])
        test = Split(inputs, labels_from(test_labels, names[3], len(inputs)))
    if class_names is None:
        numbers = torch.unique(train.labels).tolist()
        if numbers != list(range(len(numbers))):
            shown = ", ".join(str(number) for number in numbers[:10]) + (", ..." if len(numbers) > 10 else "")
            raise DataError(f"{names[1]}: expected every class number from 0 to the highest, found only {shown}")
        class_names = [str(number) for number in numbers]
    return RawData(train, test, tuple(str(name) for name in class_names))


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    return np.asarray(values)
