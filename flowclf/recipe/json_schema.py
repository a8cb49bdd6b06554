"""The JSON Schema of recipes, for editors: the same models, with every registered component."""

from __future__ import annotations

from typing import Any

from flowclf.component_schema.components import flat_schema, spec_schema
from flowclf.recipe.schema import Recipe


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a recipe with the components that are registered now.

    It accepts every valid recipe. What it cannot say, such as the number of nodes in all, is left to ``recipe validate``.

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
    document = _finished({**flat_schema(Recipe), "$defs": {"node": node}}, node_list)
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "flowclf recipe"}
    return {**about, **{key: value for key, value in document.items() if key not in about}}


def _finished(value: Any, node_list: Any) -> Any:
    """The list of nodes in its place; titles that only repeat the key are left out."""
    match value:
        case {"node_list": True}:
            return node_list
        case dict():
            return {
                key: _finished(item, node_list) for key, item in value.items() if not (key == "title" and isinstance(item, str))
            }
        case list():
            return [_finished(item, node_list) for item in value]
    return value
