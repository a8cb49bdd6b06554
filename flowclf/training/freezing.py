"""Nodes that keep their weights from some point of a training on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from flowclf.classifier import Classifier, require_invertible
from flowclf.errors import UsageError
from flowclf.graph import modules_by_name, node_rows
from flowclf.registry import nearest


class Freezing:
    """Freezes nodes of a classifier as its training proceeds: no gradient reaches their weights, and they are in eval mode.

    Args:
        classifier: the classifier.
        freeze: fractions of the training after which nodes are frozen, by a node's kind or name.

    Raises:
        UsageError: if there is no such node, or the classifier is a plain network, which has no nodes.
    """

    def __init__(self, classifier: Classifier, freeze: Mapping[str, float]) -> None:
        self._plan: list[tuple[float, nn.Module]] = []
        self._frozen: list[nn.Parameter] = []
        if freeze:
            graph = require_invertible(classifier, "train: freeze").graph
            modules, kinds = modules_by_name(graph), {row.name: row.kind for row in node_rows(graph)}
            for wanted, start in freeze.items():
                found = [module for name, module in modules.items() if wanted in (name, kinds[name])]
                if not found:
                    hint = nearest(wanted, [*dict.fromkeys(kinds.values()), *modules])
                    raise UsageError(f"train: freeze: expected the kind or name of a node, found '{wanted}'{hint}")
                self._plan += [(start, module) for module in found]
        self._waiting = list(self._plan)

    def update(self, progress: float) -> bool:
        """Freeze what is due at a fraction of the training; returns whether anything was frozen just now."""
        due = [module for start, module in self._waiting if progress >= start]
        if not due:
            return False
        self._waiting = [(start, module) for start, module in self._waiting if progress < start]
        for module in due:
            module.eval()
            self._frozen += [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return True

    def release(self) -> None:
        """Let all weights get gradients again, until the next update."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen, self._waiting = [], list(self._plan)
