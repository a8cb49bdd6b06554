"""Whether a model is what its description says: what was changed after it was built would be lost in a file."""

from __future__ import annotations

from typing import Any

from torch import nn

from flowclf.classifier import Classifier, InvertibleClassifier
from flowclf.errors import CheckpointError
from flowclf.graph import modules_by_name

# Settings of a training or an evaluation, which are no part of the model.
_PASSING = {"training", "subnet_dtype", "initializing", "activations", "keep_every", "prior_spec", "spec"}


def check_same(classifier: Classifier, built: Classifier) -> None:
    """Check that a classifier has the modules, arguments and weights of the one that was built from its description.

    Raises:
        CheckpointError: if a module was exchanged, added, removed or hooked, or an argument or the shape of a weight differs; the
            error names the first difference.
    """
    theirs, ours = dict(built.named_modules()), dict(classifier.named_modules())
    nodes = modules_by_name(classifier.graph) if isinstance(classifier, InvertibleClassifier) else {}

    def refuse(where: str, expected: Any, found: Any) -> None:
        node = next((node for index, node in enumerate(nodes) if f"{where}.".startswith(f"graph.module_list.{index}.")), None)
        place = f"node '{node}', {where}," if node else where
        raise CheckpointError(
            f"cannot be saved: {place} was changed after it was built, which would be lost: expected {expected}, found {found}"
        )

    for name in {**theirs, **ours}:
        expected, found = theirs.get(name), ours.get(name)
        if expected is None or found is None or type(expected) is not type(found):
            return refuse(name, _kind(expected), _kind(found))
        for attribute, value in _arguments(expected).items():
            if (own := vars(found).get(attribute, value)) != value:
                return refuse(f"{name}.{attribute}", value, own)
        if found._forward_hooks or found._forward_pre_hooks or "forward" in vars(found):
            return refuse(name, "its own forward pass", "a hook, or another one")
    shapes, actual = ({name: tuple(value.shape) for name, value in one.state_dict().items()} for one in (built, classifier))
    for name in sorted(shapes.keys() | actual.keys()):
        if shapes.get(name) != actual.get(name):
            return refuse(name, shapes.get(name, "none"), actual.get(name, "none"))
    return None


def _kind(module: nn.Module | None) -> str:
    return "none" if module is None else type(module).__name__


def _arguments(module: nn.Module) -> dict[str, Any]:
    """Attributes that are plain values, such as a stride or a bound."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _PASSING and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
