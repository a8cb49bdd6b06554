"""The import of torchvision, also where its compiled library does not load.

torchvision from PyPI is built against CUDA; beside a CPU build of torch its library does not load, and the import fails
because two operators that it describes do not exist. Its data sets and transforms need no compiled operator, so stating
their schemas is enough. Nothing else of flowclf imports torchvision, and nothing does before it is needed: it takes seconds.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from flowclf.errors import UsageError

__all__ = ["import_torchvision", "transforms"]

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# an operator lives as long as the library object that defined it
_libraries: list[torch.library.Library] = []


def import_torchvision() -> Any:
    """The torchvision module. Where its compiled operators work they are left alone.

    Raises:
        UsageError: torchvision is not installed or does not fit the installed torch.
    """
    try:
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            _define_missing()
            return importlib.import_module("torchvision")
    except (ImportError, RuntimeError, AttributeError) as error:
        raise UsageError(f"torchvision cannot be imported beside torch {torch.__version__}: {error}") from error


@functools.cache
def transforms() -> Any:
    """The module ``torchvision.transforms.v2``; raises as :func:`import_torchvision`."""
    import_torchvision()
    return importlib.import_module("torchvision.transforms.v2")


def _define_missing() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _libraries.append(library)
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]
