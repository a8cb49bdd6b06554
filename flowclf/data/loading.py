"""Load registered data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from flowclf.component_schema.components import build, component_model
from flowclf.component_schema.sections import keys_of, unknown_key
from flowclf.data.dataset import DataSet
from flowclf.errors import UsageError
from flowclf.settings import AugmentSettings


def load(
    name: str,
    *,
    batch_size: int = 128,
    validation: int | float = 5000,
    augment: AugmentSettings | Mapping[str, Any] | None = None,
    seed: int = 0,
    train_limit: int | None = None,
    **arguments: Any,
) -> DataSet:
    """Load a registered data set, on the CPU.

    Args:
        name: a registered name: ``mnist``, ``image_folder``, ``arrays``, ``cifar10``, ...
        batch_size: examples per training batch, at least 1.
        validation: size of the validation part: a count, or a fraction of the training set in (0, 1).
        augment: random changes to training images, an :class:`Augmentation` or a mapping of its arguments.
        seed: random seed for everything random.
        train_limit: number of training examples to use, chosen at random; by default all.
        **arguments: arguments of the registered function.

    Raises:
        RegistryError: if the name is not registered.
        UsageError: if an argument is unknown, missing or not valid; and as for :meth:`DataSet.from_raw`.
        DataError: if the data cannot be read or are inconsistent.
        ChecksumError: if a file is not the expected one.
        UnreachableError: if a file cannot be obtained.

    Example:
        >>> load("mnist", augment={"shift": 2})
        DataSet('mnist': 55000 train, 5000 validation, 10000 test, (1, 28, 28), 10 classes, batch 128, shift=2, cpu)
    """
    known = keys_of(component_model("datasets", name))
    if wrong := next((key for key in arguments if key not in known), None):
        own = inspect.signature(load).parameters.keys() - {"name", "arguments"}
        raise UsageError(f"data set '{name}': {unknown_key(wrong, [*known, *own])}")
    raw = build("datasets", {name: arguments}, error=UsageError)
    return DataSet.from_raw(
        raw, name=name, batch_size=batch_size, validation=validation, augment=augment, seed=seed, train_limit=train_limit
    )
