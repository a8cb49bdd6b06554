"""What a recipe holds: its sections, their keys, limits and defaults.

Only declarations belong here. What a component takes is read from its signature, see :mod:`flowclf.component_schema`; settings that
code uses too are in :mod:`flowclf.settings`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from pydantic import AfterValidator, Discriminator, Field, PlainValidator, Tag, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from flowclf.argument_types import NonNegativeFloat, NonNegativeInt, PositiveInt, ProperFraction
from flowclf.component_schema.components import Named, check_spec
from flowclf.component_schema.sections import Section, failure, found, located, problem
from flowclf.component_schema.signature import Component
from flowclf.component_schema.specs import NodeSpec, Repeat, read_nodes
from flowclf.settings import AugmentSettings, EvaluateSettings, TrainSettings

NODE_LIST = "node_list"
"""Key that stands in the JSON schema where a list of node specs belongs."""

_SLUG = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$"
_ENOUGH_PROBLEMS = 50


def _slug(value: str) -> str:
    if len(value) > 100 or not re.match(_SLUG, value) or value.endswith("\n"):
        raise failure(problem(f"expected lower-case letters and digits, joined by '-', '_' or '.'; found {found(value)}"))
    return value


def _checked_nodes(value: Any) -> list[Any]:
    """A list of node specs in canonical form, with every argument filled in."""
    nodes, faults = read_nodes(value)
    problems = [problem(fault.message, fault.place, fault.kind) for fault in faults]
    specs = _canonical(nodes, problems)
    if problems:
        raise failure(*problems)
    return specs


def _canonical(nodes: list[NodeSpec | Repeat], problems: list[InitErrorDetails]) -> list[Any]:
    specs: list[Any] = []
    for node in nodes:
        if isinstance(node, Repeat):
            specs.append({"repeat": node.times, "nodes": _canonical(node.nodes, problems)})
        # A list that is wrong throughout is wrong in the same way; checking on would only take time.
        elif len(problems) < _ENOUGH_PROBLEMS:
            try:
                specs.append(check_spec("nodes", node.spec))
            except ValidationError as error:
                problems += located(error, *node.place)
    return specs


def _form(value: Any) -> str:
    return "list" if isinstance(value, list) else "mapping"


class Data(Component):
    """The data set, by name, with its own arguments, and how it is used."""

    name: str = Field(description="A registered data set.")
    batch_size: PositiveInt = Field(128, description="Examples per training step.")
    bits: Annotated[int, Ge(1), Le(8)] | None = Field(8, description="Depth of the dequantisation; null for continuous data.")
    pad: NonNegativeInt = Field(0, description="Pixels added on each of the four sides.")
    validation: PositiveInt | ProperFraction = Field(5000, description="Training examples held out: a count, or a fraction.")
    augment: AugmentSettings = AugmentSettings()
    train_limit: PositiveInt | None = Field(None, description="Number of training examples to use; null for all.")


class Architecture(Component):
    """An architecture, by name, with its arguments."""

    name: str = Field(description="A registered architecture.")


class Loss(Component):
    """A loss, by name, with its arguments."""

    name: str = Field(description="A registered loss.")


class WeightedLoss(Loss):
    """A term of a sum of losses."""

    weight: NonNegativeFloat = Field(1.0, description="Factor of this term in the sum.")


_Nodes = Annotated[list[Any], PlainValidator(_checked_nodes), WithJsonSchema({NODE_LIST: True})]
_Losses = Annotated[list[Annotated[WeightedLoss, Named("losses")]], Len(1, 100)]


class Recipe(Section):
    """A recipe: everything that decides what is trained, on what, how, and how it is evaluated.

    ``model`` is an :class:`Architecture` or a list of node specs; ``loss`` is a :class:`Loss` or a list of
    :class:`WeightedLoss`. Their ``arguments`` are complete, with every default filled in.
    """

    name: Annotated[str, AfterValidator(_slug)] = Field(
        description="Name of the folder of its runs.", json_schema_extra={"pattern": _SLUG}
    )
    description: str = Field("", description="What the recipe is for, in a sentence.")
    seed: NonNegativeInt = Field(0, description="Seed of everything random.")
    data: Annotated[Data, Named("datasets")] = Field(description="The data set, by name.")
    model: Annotated[
        Annotated[Architecture, Named("models"), Tag("mapping")] | Annotated[_Nodes, Tag("list")], Discriminator(_form)
    ] = Field(description="An architecture, by name, or a list of node specs.")
    loss: Annotated[Annotated[Loss, Named("losses"), Tag("mapping")] | Annotated[_Losses, Tag("list")], Discriminator(_form)] = (
        Field(description="A loss, by name, or a list of weighted losses.")
    )
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = EvaluateSettings()
