"""Saving and loading models: a folder with ``model.safetensors`` and the description ``model.json``, never a pickle.

The description lists registered nodes with their arguments, and holds the SHA-256 of the weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

import flowclf
from flowclf.checkpoint.allocation import limit_for, tensor_shapes
from flowclf.checkpoint.comparison import check_same
from flowclf.checkpoint.description import FORMAT, VERSION, check_description
from flowclf.classifier import Classifier, InvertibleClassifier, PlainClassifier, check_precision, plain_classifier
from flowclf.classifier.typical import KEY as TYPICAL_BITS
from flowclf.classifier.typical import TypicalBits
from flowclf.component_schema.sections import plain
from flowclf.component_schema.specs import name_and_arguments
from flowclf.errors import CheckpointError, UsageError
from flowclf.files import atomic_write, check_sha256, check_writable, sha256, write_json
from flowclf.graph import describe_graph, graph_from_description, modules_by_name
from flowclf.nodes import set_subnet_dtype
from flowclf.preprocessing import Preprocessing
from flowclf.priors import FactorialPrior
from flowclf.strict_json import DESCRIPTION, WEIGHTS, json_object

_SUBNET_DTYPES = {"fp32": None, "bf16": torch.bfloat16}
_MAX_DESCRIPTION_BYTES = 16 * 2**20


def describe(classifier: Classifier) -> dict[str, Any]:
    """Describe a classifier as JSON from which :func:`rebuild` builds it again, without its weights.

    Raises:
        GraphError: if a node of the graph is not registered, or has an argument that JSON cannot hold.
        UsageError: if it is not a classifier.
        CheckpointError: if the preprocessing or the prior is of your own class, or a plain network was not made by a registered
            architecture.
    """
    if not isinstance(classifier, Classifier):
        raise UsageError(f"cannot be saved: expected a flowclf Classifier, found a {type(classifier).__name__}")
    if type(classifier.preprocessing) is not Preprocessing:
        found = type(classifier.preprocessing).__qualname__
        raise CheckpointError(f"cannot be saved: expected a Preprocessing, found a {found}")
    if isinstance(classifier, InvertibleClassifier):
        # With a fixed-point stream, subnets that were trained in bf16 are evaluated in bf16 too.
        dtypes = {getattr(module, "subnet_dtype", None) for module in classifier.modules()}
        keeps_bf16 = classifier.stream == "fixed_point" and torch.bfloat16 in dtypes
        network: dict[str, Any] = {
            "graph": describe_graph(classifier.graph),
            **_prior(classifier),
            "stream": classifier.stream,
            "subnet_precision": "bf16" if keeps_bf16 else "fp32",
        }
    elif isinstance(classifier, PlainClassifier) and classifier.spec is not None:
        network = {"network": classifier.spec, "input_shape": list(classifier.input_shape)}
    else:
        raise CheckpointError("cannot be saved: expected a network made by a registered architecture, found one of your own")
    return {
        "format": FORMAT,
        "version": VERSION,
        "flowclf": flowclf.__version__,
        "kind": classifier.kind,
        **network,
        "preprocessing": classifier.preprocessing.config(),
        "class_names": list(classifier.class_names),
    }


def _prior(classifier: InvertibleClassifier) -> dict[str, Any]:
    """The entry for the prior; none for the factorial one, whose arguments the graph's head has."""
    if type(classifier.prior) is FactorialPrior:
        return {}
    if classifier.prior_spec is None:
        found = type(classifier.prior).__qualname__
        raise CheckpointError(f"cannot be saved: expected a FactorialPrior, or a prior given by its name, found a {found}")
    name, arguments = name_and_arguments(classifier.prior_spec, "prior")
    try:
        return {"prior": {name: plain(arguments)}}
    except TypeError as error:
        raise CheckpointError(f"cannot be saved: prior '{name}': {error}") from error


def rebuild(description: Mapping[str, Any], where: str = "the description") -> InvertibleClassifier | PlainClassifier:
    """Build a classifier with newly initialised weights from its description; the global random state does not change.

    Raises:
        CheckpointError: if :func:`flowclf.checkpoint.description.check_description` rejects the description.
        GraphError: if the graph cannot be built.
    """
    check_description(description, where)
    try:
        preprocessing, names = Preprocessing(**description["preprocessing"]), description["class_names"]
        with torch.random.fork_rng():
            if description["kind"] == InvertibleClassifier.kind:
                classifier = InvertibleClassifier(
                    graph_from_description(description["graph"]),
                    preprocessing=preprocessing,
                    prior=description.get("prior", "factorial"),
                    class_names=names,
                    stream=description.get("stream", "float"),
                )
                set_subnet_dtype(classifier, _SUBNET_DTYPES[description.get("subnet_precision", "fp32")])
                return classifier
            shape, network = description["input_shape"], description["network"]
            return plain_classifier(shape, network, len(names), preprocessing=preprocessing, class_names=names)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{where} is incomplete: {type(error).__name__}: {error}") from error


def check_savable(classifier: Classifier) -> dict[str, Any]:
    """Describe a classifier, and check that the description builds the same one.

    Raises:
        GraphError: if :func:`describe` raises it.
        CheckpointError: if :func:`describe` raises it, or anything was changed after the classifier was built: a layer exchanged or
            added, an argument set, a hook registered.
    """
    description = describe(classifier)
    check_same(classifier, rebuild(description))
    return description


def save(classifier: Classifier, folder: str | Path, *, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a classifier to a folder; each file is written atomically, the description last.

    Args:
        classifier: an invertible classifier whose nodes are all registered, or a plain one of a registered architecture.
        folder: the model's folder, created if necessary; it is also returned.
        metadata: JSON to store in the description, e.g. the recipe's name and seed.

    Raises:
        GraphError, CheckpointError: if :func:`check_savable` raises them; nothing is written.
        UsageError: if the folder is a file or cannot be written to; nothing is written.
        ValueError: if JSON cannot hold the metadata; nothing is written.
        CheckpointError: if writing fails, because the disk is full, for example.

    Example:
        >>> import tempfile
        >>> clf = flowclf.build_classifier((1, 8, 8), ["squeeze", "actnorm", "split_head"], classes=10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load(save(clf, folder))
        >>> again.input_shape
        (1, 8, 8)
    """
    folder = Path(folder)
    for name in (WEIGHTS, DESCRIPTION):
        check_writable(folder / name, "save:")
    typical = getattr(classifier, "typical_bits", None)
    measured = {} if typical is None else {TYPICAL_BITS: typical.model_dump()}
    if not isinstance(metadata, Mapping | None):
        raise UsageError(f"save: metadata: expected a mapping, found a {type(metadata).__name__}")
    description = {**check_savable(classifier), "metadata": {**measured, **(metadata or {})}}
    try:
        json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: expected what JSON can hold: {error}") from error
    state = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    try:
        with atomic_write(folder / WEIGHTS) as temporary:
            safetensors.torch.save_file(state, temporary)
            digest, size = sha256(temporary), temporary.stat().st_size
        weights = {"file": WEIGHTS, "sha256": digest, "bytes": size}
        write_json(folder / DESCRIPTION, {**description, "weights": weights})
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be written: {error}") from error
    return folder


def read_description(path: str | Path) -> dict[str, Any]:
    """Read the description of a saved model.

    Raises:
        UsageError: if the folder or file does not exist.
        CheckpointError: if the file is too large, not JSON, or not an object.
    """
    path = Path(path)
    file = path / DESCRIPTION if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{path} is not a model: expected a folder that holds {DESCRIPTION}")
    if file.stat().st_size > _MAX_DESCRIPTION_BYTES:
        raise CheckpointError(f"{file}: expected at most {_MAX_DESCRIPTION_BYTES} bytes, found {file.stat().st_size}")
    return json_object(file, str(file), CheckpointError)


@torch.inference_mode(False)
def load(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> InvertibleClassifier | PlainClassifier:
    """Load a saved classifier, invertible or plain, in eval mode.

    Args:
        path: the model's folder, or the ``model.json`` in it.
        device: device to load the model to.
        dtype: floating-point type to cast it to, for an invertible classifier float32 or float64; by default as saved.

    Raises:
        UsageError: if there is no model at ``path``, torch does not have the device, or the model cannot compute in ``dtype``.
        ChecksumError: if the SHA-256 of the weights is not the one in the description.
        CheckpointError: if a file cannot be read, the description is invalid or needs more memory than its weights account for, or
            the weights do not fit it.
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
    _load_weights(classifier, weights, shapes, description)
    if isinstance(classifier, InvertibleClassifier):
        classifier.typical_bits = TypicalBits.of_metadata(description.get("metadata"))
        check_precision(classifier.dtype if dtype is None else dtype, "its parameters")
    elif dtype is not None and dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise UsageError(f"dtype: expected a floating-point type of 16 bits or more, found {dtype}")
    try:
        return classifier.to(device=device, dtype=dtype).eval()
    except (TypeError, RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{where}: cannot be loaded to device {device!r} as {dtype or 'saved'}: {reason}") from error


def _check_dimensions(description: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Reject an input with more dimensions than the weights hold numbers: the factorial prior has parameters for each."""
    factorial = "graph" in description and "prior" not in description
    dimensions = math.prod(description["graph"]["input"]["shape"]) if factorial else 0
    held = sum(map(math.prod, shapes.values()))
    if dimensions > held:
        raise CheckpointError(f"{where}: an input of {dimensions} dimensions, but the weights hold {held} numbers")


def _by_node(names: Iterable[str], classifier: Classifier, description: Mapping[str, Any]) -> dict[str, str]:
    """The names of weights in a file to those in the classifier, which both count nodes, each in its own order.

    Earlier versions saved graphs with branches in an order that changed from build to build.
    """
    rows = description.get("graph", {}).get("nodes", [])
    now = {name: index for index, name in enumerate(modules_by_name(classifier.graph))} if rows else {}
    prefixes = {f"graph.module_list.{index}": f"graph.module_list.{now[row['name']]}" for index, row in enumerate(rows)}

    def renamed(name: str) -> str:
        parts = name.split(".")
        return ".".join([prefixes.get(".".join(parts[:3]), ".".join(parts[:3])), *parts[3:]])

    return {name: renamed(name) for name in names}


def _load_weights(
    classifier: Classifier, weights: Path, shapes: Mapping[str, tuple[int, ...]], description: Mapping[str, Any]
) -> None:
    names = _by_node(shapes, classifier, description)
    found = {names[name]: shape for name, shape in shapes.items()}
    expected = {name: tuple(value.shape) for name, value in classifier.state_dict().items()}
    if expected != found:
        name, *others = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointError(
            f"{weights}: {1 + len(others)} tensors do not fit the description, the first is '{name}': expected "
            f"{expected.get(name, 'none')}, found {found.get(name, 'none')}"
        )
    try:
        state = {names[name]: value for name, value in safetensors.torch.load_file(weights).items()}
        # Assigning rather than copying keeps the saved dtype.
        classifier.load_state_dict(state, assign=True)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{weights} cannot be loaded: {error}") from error
