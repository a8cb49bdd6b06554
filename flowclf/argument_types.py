"""Types for the arguments of registered components: readers and the checks of recipes take limits from them.

Any annotation that pydantic understands does the same, see :mod:`flowclf.component_schema`. To a type checker they are plain types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

from flowclf.component_schema.components import Spec

PositiveInt = Annotated[int, Ge(1)]
"""An integer of at least 1."""

NonNegativeInt = Annotated[int, Ge(0)]
"""An integer of at least 0."""

PositiveFloat = Annotated[float, Gt(0)]
"""A number greater than 0."""

NonNegativeFloat = Annotated[float, Ge(0)]
"""A number of at least 0."""

Fraction = Annotated[float, Ge(0), Le(1)]
"""A number from 0 to 1, both included."""

PositiveFraction = Annotated[float, Gt(0), Le(1)]
"""A number greater than 0, up to 1."""

ProperFraction = Annotated[float, Gt(0), Lt(1)]
"""A number between 0 and 1, both excluded."""

Decay = Annotated[float, Ge(0), Lt(1)]
"""A number from 0 up to, but not including, 1: the decay rate of a running mean."""

SubnetSpec: TypeAlias = Annotated[str | Mapping[str, Mapping[str, Any]], Spec("subnets")]
"""A coupling's subnet: a registered name, or a mapping of one registered name to its arguments."""

TransformerSpec: TypeAlias = Annotated[str | Mapping[str, Mapping[str, Any]], Spec("transformers")]
"""A coupling's transformer: a registered name, or a mapping of one registered name to its arguments."""

TransformerName: TypeAlias = str
"""The name of a registered transformer, without arguments."""
