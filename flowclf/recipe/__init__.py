"""Recipes: strict YAML, checked against a schema that the signatures of the registered components complete.

Nothing here imports torch, but the components that a recipe names may. What only finds recipes does not wait for pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flowclf.recipe.files import bundled, cost, description, find

if TYPE_CHECKING:
    from flowclf.recipe.loading import LoadedRecipe, dump, load, loads, resolved
    from flowclf.recipe.schema import Recipe, json_schema

__all__ = ["LoadedRecipe", "Recipe", "bundled", "cost", "description", "dump", "find", "json_schema", "load", "loads", "resolved"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'flowclf.recipe' has no attribute '{name}'")
    return getattr(importlib.import_module(f"flowclf.recipe.{'schema' if name in ('Recipe', 'json_schema') else 'loading'}"), name)
