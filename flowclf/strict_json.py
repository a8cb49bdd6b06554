"""Strict schemas for untrusted JSON documents, shared by checkpoints and the zoo. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from pydantic import SerializerFunctionWrapHandler, model_serializer

from flowclf.component_schema.sections import Section
from flowclf.errors import FlowclfError

DESCRIPTION = "model.json"
"""Name of the description in a model's folder."""

WEIGHTS = "model.safetensors"
"""Name of the weights in a model's folder."""

_MAX_DEPTH = 32

Size = Annotated[int, Ge(1), Le(2**24)]
_Pixels = Annotated[int, Ge(0), Le(1024)]


class Preprocessing(Section):
    """The arguments of :class:`flowclf.Preprocessing`."""

    image_shape: Annotated[list[Size], Len(1, 3)]
    bits: Annotated[int, Ge(1), Le(8)] | None
    pad: _Pixels | Annotated[list[_Pixels], Len(4, 4)]
    fixed_point: bool = False
    mean: Annotated[list[float], Len(1, 2**24)] | None = None
    std: Annotated[list[float], Len(1, 2**24)] | None = None

    @model_serializer(mode="wrap")
    def _as_earlier(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is absent, as in files of earlier versions."""
        return {key: value for key, value in serialize(self).items() if value is not None or key not in ("mean", "std")}


def json_object(source: str | bytes | Path, where: str, error: type[FlowclfError]) -> dict[str, Any]:
    """Read a JSON object from its text or from a file.

    Args:
        source: the text, or the path of the file.
        where: name of the document in errors.
        error: class of the errors.

    Raises:
        FlowclfError: if the file cannot be read, the text is not JSON, or the document is not an object.

    Example:
        >>> from flowclf.errors import ZooError
        >>> json_object('{"models": []}', "index.json", ZooError)
        {'models': []}
    """
    try:
        text = source.read_bytes() if isinstance(source, Path) else source
        document = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except OSError as reason:
        raise error(f"{where} cannot be read: {reason.strerror or reason}") from reason
    except (ValueError, RecursionError) as reason:
        raise error(f"{where} is not JSON: {reason}") from reason
    if not isinstance(document, dict):
        raise error(f"{where}: expected a JSON object, found {type(document).__name__}")
    return document


def walk(document: Any, where: str, error: type[FlowclfError]) -> Iterator[Any]:
    """Iterate over a document and all keys and values in it, level by level; arguments are those of :func:`json_object`.

    Raises:
        FlowclfError: if the document has more than 32 nested levels, which other code could not traverse.
    """
    level = [document]
    for _ in range(_MAX_DEPTH):
        yield from level
        mappings = [value for value in level if isinstance(value, Mapping)]
        lists = [value for value in level if isinstance(value, list | tuple)]
        level = [inner for value in mappings for pair in value.items() for inner in pair]
        level += [inner for value in lists for inner in value]
        if not level:
            return
    raise error(f"{where}: expected at most {_MAX_DEPTH} nested levels, found more")
