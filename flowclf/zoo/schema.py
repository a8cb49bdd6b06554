"""Schema of a zoo's index: models, their files and hashes, origins and measured metrics."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from flowclf.component_schema.sections import Section, first_problem
from flowclf.errors import ZooError
from flowclf.files import Content
from flowclf.remote.addresses import is_url, url_problem
from flowclf.strict_json import DESCRIPTION, WEIGHTS, Preprocessing, json_object, walk

INDEX = "index.json"
RECIPE = "recipe.yaml"
CARD = "README.md"
NAME = r"^[a-z0-9][a-z0-9-]{0,99}$"
"""A model's name: lower-case letters, digits and hyphens."""
MAX_INDEX_BYTES = 16 * 2**20
# Name of a file or folder: not hidden, no separators, no spaces.
_FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_MAX_PARTS = 8
_MAX_FILE_BYTES = 2**32


def relative_path_problem(path: str) -> str | None:
    """Describe the error in a relative path, or None; no part of it may lead elsewhere or be hidden.

    Example:
        >>> relative_path_problem("mnist-ice/model.safetensors")
        >>> relative_path_problem("../model.safetensors")
        "expected a relative path of plain names, found '../model.safetensors'"
    """
    parts = path.split("/")
    if len(parts) > _MAX_PARTS or not all(re.fullmatch(_FILE, part) for part in parts):
        return f"expected a relative path of plain names, found {path[:200]!r}"
    return None


def _source(value: str) -> str:
    problem = url_problem(value) if is_url(value) else relative_path_problem(value)
    if problem:
        raise ValueError(problem)
    return value


Name = Annotated[str, StringConstraints(pattern=NAME)]
FileName = Annotated[str, StringConstraints(pattern=_FILE)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Scalar = bool | int | float | Annotated[str, StringConstraints(max_length=1000)] | None


class ZooFile(Section):
    """A file of a model: its path relative to the folder of the index, or its URL; its length and hash."""

    path: Annotated[str, AfterValidator(_source)]
    bytes: Annotated[int, Ge(1), Le(_MAX_FILE_BYTES)]
    sha256: Sha256

    @property
    def content(self) -> Content:
        """The content that a download must have."""
        return Content(self.bytes, self.sha256)


class RecipeRecord(Section):
    """The recipe that trained a model; the model's ``recipe.yaml`` is the same with every default filled in.

    Attributes:
        sha256: hash of the recipe as it was given to the run.
        shipped: whether that is the bundled recipe of this name.
        changed: changes by ``--set``, each ``key: before -> after``.
    """

    name: Line
    sha256: Sha256
    shipped: bool
    changed: Annotated[list[Line], Len(0, 200)] = Field(default_factory=list)


class DataRecord(Section):
    """The data for measuring a model: a registered data set, its arguments, and the number of test examples."""

    name: Line
    arguments: dict[str, Any] = Field(default_factory=dict)
    examples: Annotated[int, Ge(1)]


class Measured(Section):
    """A metric of the stored model, in the unit that its name says, and the largest difference from another measurement."""

    value: float
    tolerance: Annotated[float, Ge(0)]


class Training(Section):
    """Command that trains a model again; machine, training time and version of torch."""

    command: Line
    machine: Line
    seconds: Annotated[float, Ge(0)]
    torch: Line


class ZooEntry(Section):
    """A model of a zoo.

    Attributes:
        version: increases whenever the model's files change.
        kind: ``invertible``, or ``plain`` for an ordinary network.
        architecture: name of the registered architecture, or ``nodes`` for a list of nodes.
        parameters: number of trainable parameters.
        seed: random seed of the run.
        files: files by name; ``model.json`` and ``model.safetensors`` are required.
        licence: licence of the weights.
        reported: ``results.json`` of the run, or of a later evaluation like the run's.
        measured: metrics of the stored model when it was added to the zoo.
        flowclf: version that trained the model.
        aliases: older names, which still work with a warning.
    """

    name: Name
    version: Annotated[int, Ge(1)]
    description: Text = ""
    kind: Literal["invertible", "plain"]
    architecture: Line
    parameters: Annotated[int, Gt(0)]
    classes: Annotated[int, Ge(2)]
    recipe: RecipeRecord
    seed: Annotated[int, Ge(0), Le(2**63 - 1)]
    files: Annotated[dict[FileName, ZooFile], Len(2, 100)]
    data: DataRecord
    preprocessing: Preprocessing
    licence: Line
    citation: Text
    reported: Annotated[dict[Line, Scalar], Len(0, 1000)]
    measured: Annotated[dict[Line, Measured], Len(1, 1000)]
    training: Training
    flowclf: Line
    aliases: Annotated[list[Name], Len(0, 100)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        missing = [name for name in (DESCRIPTION, WEIGHTS) if name not in self.files]
        if missing:
            raise ValueError(f"files: expected {' and '.join(missing)} among them")
        return self


class ZooIndex(Section):
    """All models of a zoo."""

    format: Literal["flowclf-zoo"] = "flowclf-zoo"
    version: Literal[1] = 1
    models: Annotated[list[ZooEntry], Len(0, 10_000)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        counts = Counter(name for entry in self.models for name in (entry.name, *entry.aliases))
        taken = [name for name, count in counts.items() if count > 1]
        if taken:
            raise ValueError(f"models: the name '{taken[0]}' is given {counts[taken[0]]} times, aliases counted")
        return self


def parse_index(text: str | bytes, where: str) -> ZooIndex:
    """Parse the JSON text of an index; ``where`` is its name in errors.

    Raises:
        ZooError: if the text is not JSON or not a valid index; the message locates the first error.

    Example:
        >>> parse_index('{"format": "flowclf-zoo", "version": 1, "models": []}', "index.json").models
        []
    """
    document = json_object(text, where, ZooError)
    try:
        index = ZooIndex.model_validate(document)
    except ValidationError as error:
        raise ZooError(f"{where}: {first_problem(error)}") from None
    for value in walk(document, where, ZooError):
        # A terminal would take control characters for commands.
        if isinstance(value, str) and not value.replace("\n", "").isprintable():
            raise ZooError(f"{where}: expected text without control characters, found {value[:200]!r}")
    return index
