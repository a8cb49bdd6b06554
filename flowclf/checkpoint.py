"""Models on disk: safetensors for the weights, JSON for the description that rebuilds the graph. Never a pickle.

A model is a folder with ``model.json`` and ``model.safetensors``. The description names registered nodes with plain
arguments and holds the SHA-256 of the weights, which is checked before they are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

import flowclf
from flowclf.classifier import InvertibleClassifier
from flowclf.errors import CheckpointError, UsageError
from flowclf.files import atomic_write, check_sha256, sha256, write_json
from flowclf.graph import describe_graph, graph_from_description
from flowclf.nodes import set_subnet_dtype
from flowclf.preprocessing import Preprocessing
from flowclf.priors import FactorialPrior

__all__ = ["DESCRIPTION", "WEIGHTS", "describe", "load", "read_description", "rebuild", "save"]

DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
_FORMAT = "flowclf-model"
_VERSION = 1
_SUBNET_DTYPES = {"fp32": None, "bf16": torch.bfloat16}
_MAX_DESCRIPTION_BYTES = 16 * 2**20


def describe(classifier: InvertibleClassifier) -> dict[str, Any]:
    """Plain JSON from which :func:`rebuild` makes the same classifier, weights aside.

    Raises:
        GraphError: the graph holds a node that is not registered, or one with an argument that is not plain data.
        CheckpointError: a prior or preprocessing of one's own.
    """
    for part, kind in ((classifier.prior, FactorialPrior), (classifier.preprocessing, Preprocessing)):
        if type(part) is not kind:
            raise CheckpointError(f"cannot be saved: expected a {kind.__name__}, found a {type(part).__qualname__}")
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "flowclf": flowclf.__version__,
        "kind": "invertible",
        "graph": describe_graph(classifier.graph),
        "preprocessing": classifier.preprocessing.config(),
        "class_names": list(classifier.class_names),
        "stream": classifier.stream,
        "subnet_precision": _subnet_precision(classifier),
    }


def _subnet_precision(classifier: InvertibleClassifier) -> str:
    """What evaluation needs again: with a stream in fixed point, subnets that were trained in bf16 stay in it."""
    dtypes = {getattr(module, "subnet_dtype", None) for module in classifier.modules()}
    return "bf16" if classifier.stream == "fixed_point" and torch.bfloat16 in dtypes else "fp32"


def rebuild(description: Mapping[str, Any], where: str = "the description") -> InvertibleClassifier:
    """A classifier with fresh weights from its description; the global random state is left as it was.

    Raises:
        CheckpointError: a description of another format or version, or one that is not complete.
        GraphError: a graph that cannot be built.
    """
    if description.get("format") != _FORMAT or description.get("version") != _VERSION:
        found = f"{description.get('format')!r} version {description.get('version')!r}"
        raise CheckpointError(f"{where}: expected format '{_FORMAT}' version {_VERSION}, found {found}")
    if description.get("kind") != "invertible":
        raise CheckpointError(f"{where}: expected kind 'invertible', found {description.get('kind')!r}")
    try:
        with torch.random.fork_rng():
            classifier = InvertibleClassifier(
                graph_from_description(description["graph"]),
                preprocessing=Preprocessing(**description["preprocessing"]),
                class_names=description["class_names"],
                stream=description.get("stream", "float"),
            )
        set_subnet_dtype(classifier, _SUBNET_DTYPES[description.get("subnet_precision", "fp32")])
        return classifier
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{where} is incomplete: {type(error).__name__}: {error}") from error


def save(classifier: InvertibleClassifier, folder: str | Path, *, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a classifier to a folder; each file is written atomically, the description last.

    Args:
        classifier: whose nodes are all registered.
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
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(description, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(description).__name__}")
    return description


def load(path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> InvertibleClassifier:
    """A saved classifier, in eval mode.

    Args:
        path: the folder, or the ``model.json`` in it.
        device: where to put it.
        dtype: floating-point type to cast it to; by default as saved.

    Raises:
        UsageError: no model at ``path``.
        ChecksumError: the weights are not those that the description names.
        CheckpointError: a file that cannot be read, or weights that do not fit the description.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    description = read_description(path)
    where = str(folder / DESCRIPTION)
    entry = description.get("weights")
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str) or not isinstance(entry.get("sha256"), str):
        raise CheckpointError(f"{where}: expected weights with file and sha256, found {entry!r}")
    if Path(entry["file"]).name != entry["file"] or Path(entry["file"]).suffix != ".safetensors":
        raise CheckpointError(f"{where}: the weights must be a .safetensors file beside it, found {entry['file']!r}")
    weights = folder / entry["file"]
    check_sha256(weights, entry["sha256"])
    try:
        classifier = rebuild(description, where)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error
    _load_weights(classifier, weights)
    return classifier.to(device=device, dtype=dtype).eval()


def _load_weights(classifier: InvertibleClassifier, weights: Path) -> None:
    try:
        state = safetensors.torch.load_file(weights)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{weights} is not a safetensors file: {error}") from error
    expected = {name: tuple(value.shape) for name, value in classifier.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = wrong[0]
        raise CheckpointError(
            f"{weights}: {len(wrong)} tensors do not fit the description, the first is '{name}': expected "
            f"{expected.get(name, 'none')}, found {found.get(name, 'none')}"
        )
    try:
        # Assigned rather than copied, so that the saved dtype is kept.
        classifier.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{weights}: {error}") from error
