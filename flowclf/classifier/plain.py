"""PlainClassifier: an ordinary network, e.g. an oracle or a baseline, trained and saved like an invertible classifier."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from flowclf.classifier.base import Classifier, Encoding
from flowclf.component_schema.components import build
from flowclf.component_schema.specs import name_and_arguments
from flowclf.errors import GraphError, UsageError
from flowclf.graph import NodeRow, parameter_count
from flowclf.modes import evaluating
from flowclf.preprocessing import Preprocessing

NetworkFactory: TypeAlias = Callable[[tuple[int, ...], int], nn.Module]
"""Result of an architecture of ordinary networks: (input shape, classes) -> module from network inputs to logits (B, K)."""


class PlainClassifier(Classifier):
    """An ordinary network as a classifier, without inverse, nuisances or likelihood.

    Args:
        network: module from network inputs (B, *input_shape) to logits (B, K).
        input_shape: (C, H, W) or (D,).
        classes: K, the number of classes, at least 2.
        preprocessing: as for :class:`Classifier`, like ``class_names``.
        spec: the registered architecture that made the network, a mapping of one name to its arguments; without it the
            classifier cannot be saved.

    Raises:
        GraphError: if the network does not return logits (B, K).

    Example:
        >>> clf = PlainClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (1, 8, 8), classes=10)
        >>> clf(clf.preprocessing(torch.rand(2, 1, 8, 8))).logits.shape
        torch.Size([2, 10])
    """

    kind = "plain"

    def __init__(
        self,
        network: nn.Module,
        input_shape: Sequence[int],
        classes: int,
        *,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | None = None,
        spec: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(input_shape, classes, preprocessing, class_names)
        self.network = network
        self.spec = None if spec is None else copy.deepcopy({name: dict(arguments) for name, arguments in spec.items()})
        _, output = self._traced()
        if output != (classes,):
            raise GraphError(f"a plain network: expected outputs ({classes},), found {output}")

    def forward(self, x: Tensor) -> Encoding:
        """Encode network inputs: their logits, no nuisances, and log-determinants of 0.

        Raises:
            UsageError: if the shape is wrong or the type is not floating point.
        """
        return Encoding.of_logits(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """Compute the logits (B, K) of network inputs."""
        return self.network(self._checked(x))  # type: ignore[no-any-return]

    def node_rows(self) -> list[NodeRow]:
        """Rows for the layers, in order of execution in a trial run; one row for the whole network if it calls no layer."""
        rows, output = self._traced()
        kind = type(self.network).__name__
        return rows or [NodeRow("network", kind, (self.input_shape,), (output,), parameter_count(self.network))]

    def _traced(self) -> tuple[list[NodeRow], tuple[int, ...]]:
        """Run the network once: rows for the layers it calls, and the shape of its outputs, which need not be the last layer's."""
        rows: list[NodeRow] = []

        def record(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
            shapes = [tuple(value.shape[1:]) for value in (*inputs, output) if isinstance(value, Tensor)]
            rows.append(NodeRow(name, type(layer).__name__, tuple(shapes[:-1]), tuple(shapes[-1:]), parameter_count(layer)))

        with contextlib.ExitStack() as stack:
            for name, layer in self.network.named_modules():
                if not any(layer.children()):
                    stack.enter_context(layer.register_forward_hook(partial(record, name or "network")))
            stack.enter_context(evaluating(self.network))
            output = self.network(torch.zeros(1, *self.input_shape, device=self.device, dtype=self.dtype))
        if not isinstance(output, Tensor):
            raise GraphError(f"a plain network: expected a tensor of logits, found a {type(output).__name__}")
        return rows, tuple(output.shape[1:])

    def __repr__(self) -> str:
        return self._table(f"{self.classes} logits")


def plain_classifier(
    input_shape: Sequence[int],
    network: str | Mapping[str, Mapping[str, Any]],
    classes: int,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> PlainClassifier:
    """Build a plain classifier from a registered architecture; it can be saved.

    Args:
        input_shape: shape of one network input, (C, H, W) or (D,).
        network: a registered name, or a mapping of one to its arguments.
        classes: K, the number of classes, at least 2.
        preprocessing: as for :class:`Classifier`, like ``class_names``.

    Raises:
        RegistryError: if the name is not registered.
        UsageError: if ``network`` is not such a mapping, or the architecture does not accept the arguments or the shape.
        GraphError: if the architecture is that of an invertible classifier.

    Example:
        >>> clf = plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4, 8], "hidden": 16}}, classes=10)
        >>> clf.logits_only()(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    name, arguments = name_and_arguments(network, "architecture")
    factory = build("models", network, error=UsageError)
    if not callable(factory):
        raise GraphError(f"architecture '{name}' is for invertible classifiers: use flowclf.build_classifier")
    try:
        made = factory(tuple(input_shape), classes)
    except TypeError as error:
        raise UsageError(f"architecture '{name}': {error}") from error
    return PlainClassifier(made, input_shape, classes, preprocessing=preprocessing, class_names=class_names, spec={name: arguments})
