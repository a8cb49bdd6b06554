"""What a recipe holds: its sections, their keys, limits and defaults.

Only declarations belong here. What a component takes is not declared but read from its signature, see :mod:`flowclf.signatures`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import AfterValidator, Field, PlainValidator

from flowclf.arguments import NonNegativeFloat, NonNegativeInt, PositiveInt, ProperFraction
from flowclf.component_schema import Component, Section, failure, found, problem
from flowclf.recipe.choices import checked_losses, checked_model, checked_named, placeholder
from flowclf.settings import AugmentSettings, EvaluateSettings, TrainSettings

__all__ = ["Architecture", "Data", "Loss", "Recipe", "WeightedLoss"]

SLUG = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$"


def _slug(value: str) -> str:
    if len(value) > 100 or not re.match(SLUG, value) or value.endswith("\n"):
        raise failure(problem(f"expected lower-case letters and digits, joined by '-', '_' or '.'; found {found(value)}"))
    return value


class Data(Component):
    """The data set, by name, with its own arguments, and what becomes of it."""

    name: str = Field(description="A registered data set.")
    batch_size: PositiveInt = Field(128, description="Examples a training step.")
    bits: Annotated[int, Ge(1), Le(8)] | None = Field(8, description="Depth of the dequantisation; null for continuous data.")
    pad: NonNegativeInt = Field(0, description="Pixels added on each of the four sides.")
    validation: PositiveInt | ProperFraction = Field(5000, description="Training examples held out: a count, or a fraction.")
    augment: AugmentSettings = AugmentSettings()
    train_limit: PositiveInt | None = Field(None, description="Use only so many training examples; null for all.")


class Architecture(Component):
    """An architecture, by name, with its arguments."""

    name: str = Field(description="A registered architecture.")


class Loss(Component):
    """A loss, by name, with its arguments."""

    name: str = Field(description="A registered loss.")


class WeightedLoss(Loss):
    """A term of a sum of losses."""

    weight: NonNegativeFloat = Field(1.0, description="Factor on this term of the sum.")


class Recipe(Section):
    """A recipe: everything that decides what is trained, on what, how, and how it is judged.

    ``model`` is an :class:`Architecture` or a list of node specs; ``loss`` is a :class:`Loss` or a list of
    :class:`WeightedLoss`. Their ``arguments`` are complete, with every default filled in.
    """

    name: Annotated[str, AfterValidator(_slug)] = Field(
        description="Names the folder of its runs.", json_schema_extra={"pattern": SLUG}
    )
    description: str = Field("", description="What the recipe is for, in a sentence.")
    seed: NonNegativeInt = Field(0, description="Everything random comes from it.")
    data: Annotated[Data, PlainValidator(lambda value: checked_named("datasets", value, Data)), placeholder("data")]
    model: Annotated[
        Architecture | list[Any], PlainValidator(lambda value: checked_model(value, Architecture)), placeholder("model")
    ]
    loss: Annotated[
        Loss | list[WeightedLoss], PlainValidator(lambda value: checked_losses(value, Loss, WeightedLoss)), placeholder("loss")
    ]
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
