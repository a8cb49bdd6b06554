"""flowclf: classifiers that can be run backwards.

Importing the package imports neither torch nor anything heavy: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flowclf import data, losses, metamers, nodes, registry, zoo
    from flowclf.checkpoint import load, save
    from flowclf.classifier import Encoding, InvertibleClassifier, PlainClassifier, build_classifier, plain_classifier
    from flowclf.evaluation.evaluate import evaluate
    from flowclf.graph import build_graph
    from flowclf.preprocessing import Preprocessing
    from flowclf.training import fit

_HOMES = {
    "Encoding": "flowclf.classifier",
    "InvertibleClassifier": "flowclf.classifier",
    "PlainClassifier": "flowclf.classifier",
    "Preprocessing": "flowclf.preprocessing",
    "build_classifier": "flowclf.classifier",
    "build_graph": "flowclf.graph",
    "evaluate": "flowclf.evaluation.evaluate",
    "fit": "flowclf.training",
    "load": "flowclf.checkpoint",
    "plain_classifier": "flowclf.classifier",
    "save": "flowclf.checkpoint",
}
_MODULES = {"data", "losses", "metamers", "nodes", "registry", "zoo"}

__all__ = [
    "Encoding",
    "InvertibleClassifier",
    "PlainClassifier",
    "Preprocessing",
    "__version__",
    "build_classifier",
    "build_graph",
    "data",
    "evaluate",
    "fit",
    "load",
    "losses",
    "metamers",
    "nodes",
    "plain_classifier",
    "registry",
    "save",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"flowclf.{name}")
    raise AttributeError(f"module 'flowclf' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
