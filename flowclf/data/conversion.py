"""Conversion of a user's arrays and tensors to splits: layouts, types, class names, and a test part if there is none.

``where`` is the user's key or argument, which error messages name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowclf.data.pixels import pixels_from
from flowclf.data.records import RawData, Split
from flowclf.data.seeding import generator
from flowclf.errors import DataError, UsageError

Kind: TypeAlias = Literal["images", "vectors", "signals"]
"""What an array holds: images (N, H, W) with or without channels, vectors (N, D), or signals (N, C, L)."""

_COLOURS = (1, 3)
_EXPECTED = {
    "images": "uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), 0..255",
    "vectors": "vectors (N, D)",
    "signals": "signals (N, C, L)",
}


def check_fraction(value: Any, where: str) -> None:
    """Raise UsageError unless the value is a number greater than 0 and less than 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UsageError(f"{where}: expected a fraction greater than 0 and less than 1, found {value!r}")


def check_positive(value: Any, where: str) -> None:
    """Raise UsageError unless the value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{where}: expected an integer of at least 1, found {value!r}")


def inputs_from(values: Any, where: str, *, kind: Kind | None = None, pixel_max: float | None = None) -> Tensor:
    """Copy images to uint8 (N, C, H, W), vectors to float32 (N, D), or signals to float32 (N, C, L).

    Images are (N, H, W) grey; (N, H, W, C) or (N, C, H, W) with C = 1 or 3; see :func:`~flowclf.data.pixels.pixels_from` for their
    types. Vectors and signals have any floating-point type, or integers if ``kind`` is given.

    Args:
        values: an array or tensor.
        where: its name in error messages.
        kind: what it holds; by default uint8 and uint16, four dimensions, or a given ``pixel_max`` are images; floating point of
            two dimensions is vectors. Floating point of three dimensions may be both grey images and signals.
        pixel_max: the pixels' value of white, see :func:`~flowclf.data.pixels.pixels_from`.

    Raises:
        DataError: if the type or shape is another, or leaves the kind open; there are no elements; both or neither of the second
            and the last axis may be the channels; or a pixel is out of range, or a vector or signal is not finite.
    """
    array = _array(values)
    found = f"found {array.dtype} of shape {array.shape}"
    if not array.size:
        raise DataError(f"{where}: expected at least one image or vector, {found}")
    chosen = kind or _kind_of(array, pixel_max)
    if chosen == "images" and array.ndim in (3, 4) and array.dtype.kind in "uif":
        return torch.from_numpy(pixels_from(_channels_first(array, where, found), where, pixel_max))
    if chosen in ("vectors", "signals") and array.ndim == (2 if chosen == "vectors" else 3) and array.dtype.kind in "uif":
        with np.errstate(over="ignore"):
            numbers = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
        if not numbers.isfinite().all():
            raise DataError(f"{where}: expected finite float32 values, found NaN or infinity")
        return numbers
    expected = _EXPECTED[chosen] if chosen else f"{_EXPECTED['images']}, or floating point {_EXPECTED['vectors']}"
    open_kind = "; these may be grey images in [0, 1] or signals (N, C, L): kind says which"
    hint = open_kind if chosen is None and array.ndim == 3 and array.dtype.kind == "f" else ""
    raise DataError(f"{where}: expected {expected}, {found}{hint}")


def _kind_of(array: NDArray[Any], pixel_max: float | None) -> Kind | None:
    if array.dtype.kind == "f" and array.ndim == 2:
        return "vectors"
    if array.ndim in (3, 4) and (pixel_max is not None or array.dtype in (np.uint8, np.uint16)):
        return "images"
    return "images" if array.dtype.kind == "f" and array.ndim == 4 else None


def _channels_first(array: NDArray[Any], where: str, found: str) -> NDArray[Any]:
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in _COLOURS, array.shape[3] in _COLOURS
    if first == last:
        problem = "both are" if first else "neither is"
        raise DataError(f"{where}: expected 1 or 3 channels on the second or on the last axis, but {problem}: {found}")
    return array.transpose(0, 3, 1, 2) if last else array


def labels_from(values: Any, where: str, length: int, class_names: Sequence[str] | None = None) -> Tensor:
    """Copy class numbers to int64 (N,); names of classes are replaced by their places in ``class_names``, by default sorted.

    Raises:
        DataError: if the labels are neither integers nor strings, the shape is not (length,), a number is outside 0..2^31-1, or a
            string is not one of the class names.
    """
    array = _array(values)
    strings = strings_in(values) if array.shape == (length,) else None
    if strings is not None:
        places = {name: place for place, name in enumerate(class_names or sorted(set(strings)))}
        if unknown := sorted(set(strings) - places.keys()):
            shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise DataError(f"{where}: expected the classes {', '.join(places)}, found {shown}")
        return torch.tensor([places[name] for name in strings])
    if array.shape != (length,) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{where}: expected integers of shape ({length},), one per input, found {array.dtype} of shape {array.shape}"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= 2**31:
        raise DataError(f"{where}: expected class numbers from 0 up, found {low} to {high}")
    return torch.from_numpy(np.array(array, dtype=np.int64))


def strings_in(values: Any) -> list[str] | None:
    """The values as strings, if all of them are strings; otherwise None."""
    if isinstance(values, Tensor) or not hasattr(values, "__len__"):
        return None
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "USO":
            return None
        values = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    listed = list(values)
    return [str(value) for value in listed] if listed and all(isinstance(value, str) for value in listed) else None


def split_by_class(labels: Tensor, fraction: float, seed: int, class_names: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
    """Draw indices of a training and a test part, both in random order; test is a fraction of each class, at least one example.

    The names of the classes are for error messages.

    Raises:
        DataError: if a class has a single example.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "test"))
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels):
        members = order[labels[order] == label]
        if len(members) < 2:
            name = f"'{class_names[int(label)]}'" if class_names else str(int(label))
            raise DataError(f"class {name}: expected at least 2 examples, one of them to test on, found {len(members)}")
        test[members[: max(1, int(fraction * len(members)))]] = True
    return order[~test[order]], order[test[order]]


def raw_data_from(
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    class_names: Sequence[str] | None,
    *,
    test_fraction: float,
    test_seed: int = 0,
    kind: Kind | None = None,
    pixel_max: float | None = None,
) -> RawData:
    """Convert arrays or tensors to raw data; without a test part, examples of the training part become one.

    Args:
        train: inputs (see :func:`inputs_from`) and labels (see :func:`labels_from`), by their names in error messages.
        test: likewise; the values may be None.
        class_names: one name per class; None uses the labels themselves, sorted if they are strings.
        test_fraction: fraction of each class that becomes test data, in (0, 1), if there are no test inputs.
        test_seed: random seed for that choice.
        kind, pixel_max: as for :func:`inputs_from`.

    Raises:
        DataError: if an array is not valid, or only one of test inputs and test labels is given.
        UsageError: if the fraction is outside (0, 1).
    """
    if class_names is None and (strings := strings_in(list(train.values())[1])):
        class_names = sorted(set(strings))

    def split(named: Mapping[str, Any]) -> Split:
        (inputs_name, values), (labels_name, labels) = named.items()
        inputs = inputs_from(values, inputs_name, kind=kind, pixel_max=pixel_max)
        return Split(inputs, labels_from(labels, labels_name, len(inputs), class_names))

    train_split = split(train)
    given = [name for name, value in test.items() if value is not None]
    if len(given) == 1:
        missing = next(name for name in test if name not in given)
        raise DataError(f"expected {' and '.join(test)} together, found {given[0]} without {missing}")
    if given:
        test_split = split(test)
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


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"expected an array, found a {type(values).__name__} whose parts have several lengths") from error
