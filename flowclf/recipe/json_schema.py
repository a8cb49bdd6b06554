"""The JSON Schema of recipes, for editors: the same models, with every registered component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowclf import registry
from flowclf.recipe.choices import MAX_LOSSES, OneOf
from flowclf.recipe.schema import OPTIMIZERS, SCHEDULES, Architecture, Data, Loss, Recipe, WeightedLoss
from flowclf.signatures import Component, Section, component_model
from flowclf.signatures.components import PLACEHOLDER

__all__ = ["json_schema"]


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a recipe with the components that are registered now.

    It accepts every valid recipe. What it cannot say, such as the number of nodes in all, is left to ``recipe validate``.

    Raises:
        RegistryError: the source of a registered component cannot be read.
    """
    schema = Recipe.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    definitions["data"] = _named("datasets", Data)
    definitions["model"] = {"anyOf": [_named("models", Architecture), {PLACEHOLDER: "node_list"}]}
    terms = {"type": "array", "minItems": 1, "maxItems": MAX_LOSSES, "items": _named("losses", WeightedLoss)}
    definitions["loss"] = {"anyOf": [_named("losses", Loss), terms]}
    definitions["node_list"] = {"type": "array", "minItems": 1, "items": {PLACEHOLDER: "nodes"}}
    repeat = {
        "type": "object",
        "properties": {"repeat": {"type": "integer", "minimum": 1}, "nodes": {PLACEHOLDER: "node_list"}},
        "required": ["repeat", "nodes"],
        "additionalProperties": False,
    }
    definitions["nodes"] = {"anyOf": [*_spec("nodes"), repeat]}
    for kind in ("subnets", "transformers"):
        definitions[kind] = {"anyOf": _spec(kind)}
    for choice in (OPTIMIZERS, SCHEDULES):
        definitions[choice.kind] = {"anyOf": _choice(choice)}
    document: dict[str, Any] = _linked(schema)
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "flowclf recipe"}
    return {**about, **{key: value for key, value in document.items() if key not in about}}


def _linked(value: Any) -> Any:
    """Placeholders to references; titles that only repeat the key are left out."""
    match value:
        case {"x-flowclf-kind": str() as kind}:
            rest = {key: item for key, item in value.items() if key == "description"}
            return {"$ref": f"#/$defs/{kind}", **rest}
        case dict():
            return {key: _linked(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
        case list():
            return [_linked(item) for item in value]
    return value


def _flat(model: type[Section]) -> dict[str, Any]:
    """A model's schema without definitions of its own: sections inside it are written out."""
    schema = model.model_json_schema()
    definitions: Mapping[str, Any] = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        match value:
            case {"$ref": str() as reference}:
                rest = {key: item for key, item in value.items() if key != "$ref"}
                return {**inlined(definitions[reference.rpartition("/")[2]]), **rest}
            case dict():
                return {key: inlined(item) for key, item in value.items()}
            case list():
                return [inlined(item) for item in value]
        return value

    return inlined(schema)  # type: ignore[no-any-return]


def _named(kind: str, base: type[Component]) -> dict[str, Any]:
    """A mapping of a name and what belongs to that name. Branches by name, so that an editor's error is about the one meant."""
    names = registry.registries[kind].names()
    branches = []
    for name in names:
        schema = _flat(component_model(kind, name, base))
        schema["properties"]["name"] = {"const": name}
        branches.append({"if": {"properties": {"name": {"const": name}}, "required": ["name"]}, "then": schema})
    return {"type": "object", "required": ["name"], "properties": {"name": {"enum": names}}, "allOf": branches}


def _spec(kind: str) -> list[dict[str, Any]]:
    names = registry.registries[kind].names()
    models = {name: _flat(component_model(kind, name)) for name in names}
    alone = [name for name, schema in models.items() if not schema.get("required") and not schema.get("allOf")]
    mapping = {
        "type": "object",
        "properties": models,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
    return [{"enum": alone}, mapping]


def _choice(choice: OneOf) -> list[dict[str, Any]]:
    first, *others = choice.sections.values()
    return [_flat(first), *({**(schema := _flat(other)), "required": [*schema.get("required", []), "name"]} for other in others)]
