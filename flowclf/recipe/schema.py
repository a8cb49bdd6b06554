"""A recipe's sections, their keys, limits and defaults, and the JSON Schema of them for editors.

Arguments of components are read from their signatures, see :mod:`flowclf.component_schema`; settings that code uses too are in
:mod:`flowclf.settings`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from pydantic import AfterValidator, Discriminator, Field, PlainValidator, Tag, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from flowclf.argument_types import NonNegativeFloat, NonNegativeInt, PositiveInt, ProperFraction
from flowclf.component_schema.components import Named, check_spec, flat_schema, spec_schema
from flowclf.component_schema.sections import Section, failure, found, located, problem
from flowclf.component_schema.signature import Component
from flowclf.component_schema.specs import NodeSpec, Repeat, read_nodes
from flowclf.settings import AugmentSettings, EvaluateSettings, TrainSettings

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


class Data(Component):
    """The data set, by name, with its own arguments, and how it is used."""

    name: str = Field(description="A registered data set.")
    batch_size: PositiveInt = Field(128, description="Examples per training step.")
    bits: Annotated[int, Ge(1), Le(8)] | None = Field(8, description="Depth of the dequantisation; null for continuous data.")
    pad: NonNegativeInt | Annotated[list[NonNegativeInt], Len(4, 4)] = Field(
        0, description="Pixels added on each of the four sides, or a list of four numbers: left, top, right, bottom."
    )
    standardize: bool = Field(
        False, description="Scale vectors and signals by the mean and std of the training part; they are kept in the model."
    )
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


_Nodes = Annotated[list[Any], PlainValidator(_checked_nodes), WithJsonSchema({"node_list": True})]
_Losses = Annotated[list[Annotated[WeightedLoss, Named("losses")]], Len(1, 100)]
_Form = Discriminator(lambda value: "list" if isinstance(value, list) else "mapping")


class Recipe(Section):
    """Everything that determines what is trained, on what, how, and how it is evaluated.

    The ``arguments`` of components are complete, with every default filled in.
    """

    name: Annotated[str, AfterValidator(_slug)] = Field(
        description="Name of the folder of its runs.", json_schema_extra={"pattern": _SLUG}
    )
    description: str = Field("", description="What the recipe is for, in a sentence.")
    seed: NonNegativeInt = Field(0, description="Seed of everything random.")
    data: Annotated[Data, Named("datasets")] = Field(description="The data set, by name.")
    model: Annotated[Annotated[Architecture, Named("models"), Tag("mapping")] | Annotated[_Nodes, Tag("list")], _Form] = Field(
        description="An architecture, by name, or a list of node specs."
    )
    loss: Annotated[Annotated[Loss, Named("losses"), Tag("mapping")] | Annotated[_Losses, Tag("list")], _Form] = Field(
        description="A loss, by name, or a list of weighted losses."
    )
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = EvaluateSettings()


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a recipe with the components that are registered now.

    It accepts every valid recipe. What it cannot say, such as the number of nodes in all, only ``recipe validate`` checks.

    Raises:
        RegistryError: if a registered component cannot be imported, or its annotations are not types.
    """
    node_list = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/node"}}
    repeat = {
        "type": "object",
        "properties": {"repeat": {"type": "integer", "minimum": 1}, "nodes": node_list},
        "required": ["repeat", "nodes"],
        "additionalProperties": False,
    }
    node = {"anyOf": [*spec_schema("nodes")["anyOf"], repeat]}
    document: dict[str, Any] = _finished({**flat_schema(Recipe), "$defs": {"node": node}}, node_list)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "flowclf recipe"} | document


def _finished(value: Any, node_list: Any) -> Any:
    """The list of nodes in its place; titles that only repeat the key are left out."""
    match value:
        case {"node_list": True}:
            return node_list
        case dict():
            titled = isinstance(value.get("title"), str)
            return {key: _finished(item, node_list) for key, item in value.items() if key != "title" or not titled}
        case list():
            return [_finished(item, node_list) for item in value]
    return value
