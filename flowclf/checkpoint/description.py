"""Schema and limits of a model's JSON description, checked before anything is built or allocated from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Len
from pydantic import Field, StringConstraints, ValidationError

from flowclf.component_schema.sections import Section, first_problem
from flowclf.component_schema.specs import MAX_NODES
from flowclf.errors import CheckpointError
from flowclf.strict_json import Preprocessing, Size, walk

FORMAT = "flowclf-model"
VERSION = 1

_MAX_VALUES = 1_000_000
_MAX_TEXT = 10_000
_MAX_NUMBER = 2**53

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Shape = Annotated[list[Size], Len(1, 3)]


class _Input(Section):
    name: Name
    shape: Shape


class _Node(Section):
    name: Name
    kind: Name
    arguments: dict[str, Any]
    inputs: Annotated[list[Annotated[list[Any], Len(2, 2)]], Len(1, 1000)]


class _Graph(Section):
    input: _Input
    nodes: Annotated[list[_Node], Len(1, MAX_NODES)]


class _Weights(Section):
    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$", max_length=200)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]
    bytes: Annotated[int, Ge(1)]


class _Description(Section):
    format: Literal["flowclf-model"]
    version: Literal[1]
    flowclf: Name
    preprocessing: Preprocessing
    class_names: Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Len(2, 100_000)]
    metadata: dict[str, Any] = Field(default_factory=dict)
    weights: _Weights | None = None


class _Invertible(_Description):
    kind: Literal["invertible"]
    graph: _Graph
    prior: Annotated[dict[Name, dict[str, Any]], Len(1, 1)] = Field({"factorial": {}})
    stream: Literal["float", "fixed_point"] = "float"
    subnet_precision: Literal["fp32", "bf16"] = "fp32"


class _Plain(_Description):
    kind: Literal["plain"]
    input_shape: Shape
    network: Annotated[dict[Name, dict[str, Any]], Len(1, 1)]


_KINDS: Mapping[str, type[_Description]] = {"invertible": _Invertible, "plain": _Plain}


def check_description(description: Mapping[str, Any], where: str = "the description") -> None:
    """Check the keys, types and sizes of a description; ``where`` is its name in errors.

    Nodes check their own arguments, and the graph checks whether nodes fit together.

    Raises:
        CheckpointError: if the format, version or kind is another; a key is unknown or missing; or a value is of the wrong type or
            over a limit: 10 000 nodes, sizes of 2^24, texts of 10 000 characters, 32 levels, a million values.

    Example:
        >>> check_description({"format": "flowclf-model", "version": 2})
        Traceback (most recent call last):
        flowclf.errors.CheckpointError: the description: expected format 'flowclf-model' version 1, found 'flowclf-model' version 2
    """
    if description.get("format") != FORMAT or description.get("version") != VERSION:
        found = f"{description.get('format')!r} version {description.get('version')!r}"
        raise CheckpointError(f"{where}: expected format '{FORMAT}' version {VERSION}, found {found}"[:500])
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        known = " or ".join(f"'{name}'" for name in _KINDS)
        raise CheckpointError(f"{where}: expected kind {known}, found {kind!r}"[:500])
    _check_limits(description, where)
    try:
        _KINDS[kind].model_validate(dict(description))
    except ValidationError as error:
        raise CheckpointError(f"{where}: {first_problem(error)}") from None


def _check_limits(description: Mapping[str, Any], where: str) -> None:
    """Reject a document that is too deep or too large to be traversed later."""
    for number, value in enumerate(walk(description, where, CheckpointError), 1):
        if number > _MAX_VALUES:
            raise CheckpointError(f"{where}: expected at most {_MAX_VALUES} values, found more")
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            raise CheckpointError(f"{where}: expected texts of at most {_MAX_TEXT} characters, found one of {len(value)}")
        if isinstance(value, int) and abs(value) > _MAX_NUMBER:
            raise CheckpointError(f"{where}: expected integers of at most 2^53 in magnitude, found a larger one")
