"""What a zoo's index holds: models, their files and hashes, where they come from and what they measure.

Only declarations belong here, and the reading of a document that should fit them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from flowclf.component_schema.sections import Section, first_problem
from flowclf.errors import ZooError
from flowclf.remote.addresses import is_url, url_problem
from flowclf.remote.transport import Content
from flowclf.strict_json import DESCRIPTION, WEIGHTS, Preprocessing, json_object

INDEX = "index.json"
RECIPE = "recipe.yaml"
CARD = "README.md"
NAME = r"^[a-z0-9][a-z0-9-]{0,99}$"
"""A model's name: lower-case letters, digits and hyphens."""
MAX_INDEX_BYTES = 16 * 2**20
# A file's or folder's name: nothing hidden, no separators, no spaces.
_FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_MAX_PARTS = 8
_MAX_FILE_BYTES = 2**32
_MAX_DEPTH = 32


def relative_path_problem(path: str) -> str | None:
    """What is wrong with a relative path, or None: every part of it must be a file's name.

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
    """A file of a model.

    Attributes:
        path: relative to the folder of the index, or a URL.
        bytes: its length.
        sha256: of its content, 64 hexadecimal digits.
    """

    path: Annotated[str, AfterValidator(_source)]
    bytes: Annotated[int, Ge(1), Le(_MAX_FILE_BYTES)]
    sha256: Sha256

    @property
    def content(self) -> Content:
        """What a download of it has to give."""
        return Content(self.bytes, self.sha256)


class RecipeRecord(Section):
    """The recipe that trained a model. The model's ``recipe.yaml`` is the same with every default filled in.

    Attributes:
        name: its name.
        sha256: of the recipe as it was given to the run.
        shipped: whether that is the text of the recipe of this name that flowclf shipped.
        changed: what ``--set`` changed in it, each ``key: before -> after``.
    """

    name: Line
    sha256: Sha256
    shipped: bool
    changed: Annotated[list[Line], Len(0, 200)] = Field(default_factory=list)


class DataRecord(Section):
    """The data that a model is measured on: the test part of a registered data set.

    Attributes:
        name: of the data set.
        arguments: its own arguments.
        examples: of the test part.
    """

    name: Line
    arguments: dict[str, Any] = Field(default_factory=dict)
    examples: Annotated[int, Ge(1)]


class Measured(Section):
    """A metric that was measured anew from the stored model, and how near another measurement must come.

    Attributes:
        value: in the unit that the metric's name says.
        tolerance: largest absolute difference; 0 for an error, which must agree to the image.
    """

    value: float
    tolerance: Annotated[float, Ge(0)]


class Training(Section):
    """How a model was trained.

    Attributes:
        command: that trains it again.
        machine: threads, processor and system, or the GPU and those.
        seconds: of training.
        torch: version.
    """

    command: Line
    machine: Line
    seconds: Annotated[float, Ge(0)]
    torch: Line


class ZooEntry(Section):
    """A model of a zoo.

    Attributes:
        name: lower-case letters, digits and hyphens.
        version: counts up whenever the model's files or figures change.
        description: a sentence.
        kind: of classifier: ``invertible``, or ``plain`` for an ordinary network.
        architecture: name of the registered architecture, or ``nodes`` for a list of nodes.
        parameters: number of trainable parameters.
        classes: number of classes.
        recipe: that trained it.
        seed: that everything random came from.
        files: by name; ``model.json`` and ``model.safetensors`` among them.
        data: that it is measured on.
        preprocessing: from images in [0, 1] to what the network takes.
        licence: of the weights.
        citation: what to cite.
        reported: what the run that trained it reported, as its ``results.json`` has it, or a later evaluation as that of the run.
        measured: what the stored model measured when it was put into the zoo.
        training: command, machine, time.
        flowclf: version that trained it.
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
    """The index in a JSON document.

    Args:
        text: the document.
        where: what errors call it.

    Raises:
        ZooError: if it is not JSON, or not an index; has the place of the first thing that is wrong.

    Example:
        >>> parse_index('{"format": "flowclf-zoo", "version": 1, "models": []}', "index.json").models
        []
    """
    document = json_object(text, where, ZooError)
    try:
        index = ZooIndex.model_validate(document)
    except ValidationError as error:
        raise ZooError(f"{where}: {first_problem(error)}") from None
    _check_texts(document, where)
    return index


def _check_texts(document: Any, where: str) -> None:
    """Refuse what a terminal would take for a command, and what is nested too deeply for anything that walks through it."""
    level = [document]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and not value.replace("\n", "").isprintable():
                raise ZooError(f"{where}: expected text without control characters, found {value[:200]!r}")
        if not inner:
            return
        level = inner
    raise ZooError(f"{where}: nested more than the {_MAX_DEPTH} levels that an index may have")
