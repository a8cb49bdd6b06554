"""Load registered data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from flowclf import registry
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
        train_limit: train on this many examples only, chosen at random.
        **arguments: arguments of the registered function.

    Raises:
        RegistryError: if the name is not registered.
        UsageError: if an argument is unknown or missing; and as for :meth:`DataSet.from_raw`.
        DataError: if the data cannot be read or are inconsistent.
        ChecksumError: if a file is not the expected one.
        UnreachableError: if a file cannot be obtained.

    Example:
        >>> load("mnist", augment={"shift": 2})
        DataSet('mnist': 55000 train, 5000 validation, 10000 test, (1, 28, 28), 10 classes, batch 128, shift=2, cpu)
    """
    function = registry.datasets.get(name)
    _check_arguments(name, function, arguments)
    return DataSet.from_raw(
        function(**arguments),
        name=name,
        batch_size=batch_size,
        validation=validation,
        augment=augment,
        seed=seed,
        train_limit=train_limit,
    )


def _check_arguments(name: str, function: Any, arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    settings = [key for key in inspect.signature(load).parameters if key not in ("name", "arguments")]
    for key in arguments:
        if key not in parameters:
            near = registry.nearest(key, [*parameters, *settings])
            raise UsageError(f"data set '{name}': unknown argument '{key}'{near}")
    required = [key for key, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    missing = [key for key in required if key not in arguments]
    if missing:
        raise UsageError(f"data set '{name}': expected the argument {', '.join(missing)}")
