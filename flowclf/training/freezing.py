"""Nodes that keep their weights from some point of a training on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from flowclf.classifier import Classifier, require_invertible
from flowclf.errors import UsageError
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
        if not freeze:
            return
        graph = require_invertible(classifier, "train: freeze").graph
        modules = {node.name: node.module for node in graph.node_list if node.module is not None}
        kinds = {row.name: row.kind for row in require_invertible(classifier, "train: freeze").node_rows()}
        for wanted, start in freeze.items():
            found = [module for name, module in modules.items() if wanted in (name, kinds.get(name))]
            if not found:
                known = [*dict.fromkeys(kinds.values()), *modules]
                raise UsageError(f"train: freeze: expected the kind or name of a node, found '{wanted}'{nearest(wanted, known)}")
            self._plan += [(start, module) for module in found]

    def update(self, progress: float) -> bool:
        """Freeze what is due at a fraction of the training; returns whether anything was frozen just now."""
        changed = False
        for start, module in self._plan:
            if progress < start:
                continue
            if module.training:
                module.eval()
            fresh = [parameter for parameter in module.parameters() if parameter.requires_grad]
            for parameter in fresh:
                parameter.requires_grad_(False)
            self._frozen += fresh
            changed = changed or bool(fresh)
        return changed

    def release(self) -> None:
        """Let all weights get gradients again."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen.clear()
