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
    "Encoding": "classifier",
    "InvertibleClassifier": "classifier",
    "PlainClassifier": "classifier",
    "Preprocessing": "preprocessing",
    "build_classifier": "classifier",
    "build_graph": "graph",
    "evaluate": "evaluation.evaluate",
    "fit": "training",
    "load": "checkpoint",
    "plain_classifier": "classifier",
    "save": "checkpoint",
}

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
        return getattr(importlib.import_module(f"flowclf.{_HOMES[name]}"), name)
    if name in ("data", "losses", "metamers", "nodes", "registry", "zoo"):
        return importlib.import_module(f"flowclf.{name}")
    raise AttributeError(f"module 'flowclf' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
