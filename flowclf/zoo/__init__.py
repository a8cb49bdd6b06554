"""The zoo: trained models by name, with hashes that are checked at every load and metrics that can be measured again.

Any folder or static file server that holds an ``index.json`` and the files it names is a zoo; flowclf comes with one.

Example:
    >>> import flowclf
    >>> for entry in flowclf.zoo.list():
    ...     assert flowclf.zoo.info(entry.name).files["model.safetensors"].bytes <= 12_000_000
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowclf.remote.settings import Options
from flowclf.zoo.access import download, info, load, model_folder
from flowclf.zoo.access import list_models as list
from flowclf.zoo.schema import ZooEntry, ZooIndex
from flowclf.zoo.verifying import Comparison, Verification, verify

if TYPE_CHECKING:
    from flowclf.zoo.adding import add

__all__ = [
    "Comparison",
    "Options",
    "Verification",
    "ZooEntry",
    "ZooIndex",
    "add",
    "download",
    "info",
    "list",
    "load",
    "model_folder",
    "verify",
]


def __getattr__(name: str) -> Any:
    # It reads recipes, and importing that takes a third of the time of ``flowclf zoo list``.
    if name == "add":
        from flowclf.zoo.adding import add

        return add
    raise AttributeError(f"module 'flowclf.zoo' has no attribute '{name}'")
