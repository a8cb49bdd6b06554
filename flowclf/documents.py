"""JSON documents that nobody vouches for: names of a model's files, and words for what is wrong.

What checkpoints and the zoo share. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, Len
from pydantic import ValidationError

from flowclf.sections import Section

__all__ = ["DESCRIPTION", "WEIGHTS", "Preprocessing", "Size", "first_problem"]

DESCRIPTION = "model.json"
"""In a model's folder."""

WEIGHTS = "model.safetensors"
"""Beside the description."""

Size = Annotated[int, Ge(1), Le(2**24)]


class Preprocessing(Section):
    """The arguments of :class:`flowclf.Preprocessing`."""

    image_shape: Annotated[list[Size], Len(1, 3)]
    bits: Annotated[int, Ge(1), Le(8)] | None
    pad: Annotated[int, Ge(0), Le(1024)]
    fixed_point: bool = False


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, with its place, on one line.

    Example:
        >>> try:
        ...     Preprocessing.model_validate({"image_shape": [1, 8, 8], "bits": 9, "pad": -1})
        ... except ValidationError as error:
        ...     first_problem(error)
        'bits: Input should be less than or equal to 8, and 1 more'
    """
    problems = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, problems[0]["loc"]))
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{place + ': ' if place else ''}{problems[0]['msg']}{more}"
