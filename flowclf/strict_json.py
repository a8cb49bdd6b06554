"""Strict schemas for untrusted JSON documents, shared by checkpoints and the zoo. Does not import torch."""

from __future__ import annotations

import json
from typing import Annotated, Any

from annotated_types import Ge, Le, Len

from flowclf.component_schema.sections import Section
from flowclf.errors import FlowclfError

DESCRIPTION = "model.json"
"""Name of the description in a model's folder."""

WEIGHTS = "model.safetensors"
"""Name of the weights in a model's folder."""

Size = Annotated[int, Ge(1), Le(2**24)]


class Preprocessing(Section):
    """The arguments of :class:`flowclf.Preprocessing`."""

    image_shape: Annotated[list[Size], Len(1, 3)]
    bits: Annotated[int, Ge(1), Le(8)] | None
    pad: Annotated[int, Ge(0), Le(1024)]
    fixed_point: bool = False


def json_object(text: str | bytes, where: str, error: type[FlowclfError]) -> dict[str, Any]:
    """The object that a JSON document is.

    Args:
        text: of the document.
        where: what errors call it.
        error: what is raised.

    Raises:
        FlowclfError: of the class ``error``, if the text is not JSON, or is something other than an object.

    Example:
        >>> from flowclf.errors import ZooError
        >>> json_object('{"models": []}', "index.json", ZooError)
        {'models': []}
    """
    try:
        document = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as reason:
        raise error(f"{where} is not JSON: {reason}") from reason
    if not isinstance(document, dict):
        raise error(f"{where}: expected a JSON object, found {type(document).__name__}")
    return document
