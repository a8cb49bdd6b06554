"""Models on disk: safetensors for the weights, JSON for the description that rebuilds the graph. Never a pickle.

A model is a folder with ``model.json`` and ``model.safetensors``. The description names registered nodes with plain
arguments and holds the SHA-256 of the weights, which is checked before they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

import flowclf
from flowclf.checkpoint.allocation import limit_for, tensor_shapes
from flowclf.checkpoint.description import FORMAT, VERSION, check_description
from flowclf.classifier import Classifier, InvertibleClassifier, PlainClassifier, plain_classifier
from flowclf.errors import CheckpointError, UsageError
from flowclf.files import atomic_write, check_sha256, sha256, write_json
from flowclf.graph import describe_graph, graph_from_description
from flowclf.nodes import set_subnet_dtype
from flowclf.preprocessing import Preprocessing
from flowclf.priors import FactorialPrior
from flowclf.strict_json import DESCRIPTION, WEIGHTS, json_object

__all__ = ["DESCRIPTION", "WEIGHTS", "describe", "load", "read_description", "rebuild", "save"]

_SUBNET_DTYPES = {"fp32": None, "bf16": torch.bfloat16}
_MAX_DESCRIPTION_BYTES = 16 * 2**20


def describe(classifier: Classifier) -> dict[str, Any]:
    """Plain JSON from which :func:`rebuild` makes the same classifier, weights aside.

    Raises:
        GraphError: the graph holds a node that is not registered, or one with an argument that is not plain data.
        CheckpointError: a prior or preprocessing of one's own, or a plain network that no registered architecture made.
    """
    parts: list[tuple[object, type]] = [(classifier.preprocessing, Preprocessing)]
    if isinstance(classifier, InvertibleClassifier):
        parts.append((classifier.prior, FactorialPrior))
        network: dict[str, Any] = {
            "graph": describe_graph(classifier.graph),
            "stream": classifier.stream,
            "subnet_precision": _subnet_precision(classifier),
        }
    elif isinstance(classifier, PlainClassifier) and classifier.spec is not None:
        network = {"network": classifier.spec, "input_shape": list(classifier.input_shape)}
    else:
        raise CheckpointError("cannot be saved: expected a network that a registered architecture made, found one of your own")
    for part, kind in parts:
        if type(part) is not kind:
            raise CheckpointError(f"cannot be saved: expected a {kind.__name__}, found a {type(part).__qualname__}")
    return {
        "format": FORMAT,
        "version": VERSION,
        "flowclf": flowclf.__version__,
        "kind": classifier.kind,
        **network,
        "preprocessing": classifier.preprocessing.config(),
        "class_names": list(classifier.class_names),
    }


def _subnet_precision(classifier: InvertibleClassifier) -> str:
    """What evaluation needs again: with a stream in fixed point, subnets that were trained in bf16 stay in it."""
    dtypes = {getattr(module, "subnet_dtype", None) for module in classifier.modules()}
    return "bf16" if classifier.stream == "fixed_point" and torch.bfloat16 in dtypes else "fp32"


def rebuild(description: Mapping[str, Any], where: str = "the description") -> InvertibleClassifier | PlainClassifier:
    """A classifier with fresh weights from its description; the global random state is left as it was.

    Raises:
        CheckpointError: a description that :func:`flowclf.checkpoint.description.check_description` refuses.
        GraphError: a graph that cannot be built.
    """
    check_description(description, where)
    try:
        preprocessing, names = Preprocessing(**description["preprocessing"]), description["class_names"]
        with torch.random.fork_rng():
            if description["kind"] == InvertibleClassifier.kind:
                graph, stream = graph_from_description(description["graph"]), description.get("stream", "float")
                classifier = InvertibleClassifier(graph, preprocessing=preprocessing, class_names=names, stream=stream)
                set_subnet_dtype(classifier, _SUBNET_DTYPES[description.get("subnet_precision", "fp32")])
                return classifier
            shape, network = description["input_shape"], description["network"]
            return plain_classifier(shape, network, len(names), preprocessing=preprocessing, class_names=names)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{where} is incomplete: {type(error).__name__}: {error}") from error


def save(classifier: Classifier, folder: str | Path, *, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a classifier to a folder; each file is written atomically, the description last.

    Args:
        classifier: whose nodes are all registered, or a plain one of a registered architecture.
        folder: made if need be.
        metadata: plain JSON to keep along, e.g. the recipe's name and seed.

    Returns:
        The folder.

    Raises:
        GraphError: a node that cannot be saved; names it, and nothing is written.
        ValueError: metadata that JSON cannot hold; nothing is written.

    Example:
        >>> import tempfile
        >>> clf = flowclf.build_classifier((1, 8, 8), ["squeeze", "actnorm", "split_head"], classes=10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load(save(clf, folder))
        >>> again.input_shape
        (1, 8, 8)
    """
    description = {**describe(classifier), "metadata": dict(metadata or {})}
    json.dumps(description, allow_nan=False)
    folder = Path(folder)
    state = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(state, temporary)
        digest, size = sha256(temporary), temporary.stat().st_size
    weights = {"file": WEIGHTS, "sha256": digest, "bytes": size}
    write_json(folder / DESCRIPTION, {**description, "weights": weights})
    return folder


def read_description(path: str | Path) -> dict[str, Any]:
    """The description of a saved model, as a mapping.

    Raises:
        UsageError: no such folder or file.
        CheckpointError: not JSON, or not an object.
    """
    path = Path(path)
    file = path / DESCRIPTION if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{path} is not a model: expected a folder that holds {DESCRIPTION}")
    if file.stat().st_size > _MAX_DESCRIPTION_BYTES:
        raise CheckpointError(f"{file}: {file.stat().st_size} bytes, more than the {_MAX_DESCRIPTION_BYTES} a description may have")
    return json_object(file.read_bytes(), str(file), CheckpointError)


def load(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> InvertibleClassifier | PlainClassifier:
    """A saved classifier, invertible or plain, in eval mode.

    Args:
        path: the folder, or the ``model.json`` in it.
        device: where to put it.
        dtype: floating-point type to cast it to; by default as saved.

    Raises:
        UsageError: no model at ``path``.
        ChecksumError: the weights are not those that the description names.
        CheckpointError: a file that cannot be read, a description that is refused or that asks for more memory than its weights
            account for, or weights that do not fit it.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    description = read_description(path)
    where = str(folder / DESCRIPTION)
    check_description(description, where)
    entry = description.get("weights")
    if entry is None:
        raise CheckpointError(f"{where}: expected weights with file and sha256, found none")
    weights = folder / entry["file"]
    check_sha256(weights, entry["sha256"])
    shapes = tensor_shapes(weights)
    _check_dimensions(description, shapes, where)
    try:
        with limit_for(shapes, where):
            classifier = rebuild(description, where)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error
    _load_weights(classifier, weights, shapes)
    return classifier.to(device=device, dtype=dtype).eval()


def _check_dimensions(description: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """The prior has numbers for every dimension of the input, so an input larger than the weights cannot be meant."""
    dimensions = math.prod(description["graph"]["input"]["shape"]) if "graph" in description else 0
    held = sum(map(math.prod, shapes.values()))
    if dimensions > held:
        raise CheckpointError(f"{where}: an input of {dimensions} dimensions, but the weights hold {held} numbers")


def _load_weights(classifier: Classifier, weights: Path, found: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(value.shape) for name, value in classifier.state_dict().items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = wrong[0]
        raise CheckpointError(
            f"{weights}: {len(wrong)} tensors do not fit the description, the first is '{name}': expected "
            f"{expected.get(name, 'none')}, found {found.get(name, 'none')}"
        )
    try:
        state = safetensors.torch.load_file(weights)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{weights} is not a safetensors file: {error}") from error
    try:
        # Assigned rather than copied, so that the saved dtype is kept.
        classifier.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{weights}: {error}") from error
