"""Recipes: strict YAML, checked against a schema that the signatures of the registered components complete.

Only the public names belong here. Nothing in this package imports torch; the components that a recipe names may.
"""

from __future__ import annotations

from flowclf.recipe.json_schema import json_schema
from flowclf.recipe.loading import LoadedRecipe, bundled, description, dump, find, load, loads, resolved
from flowclf.recipe.schema import Recipe

__all__ = ["LoadedRecipe", "Recipe", "bundled", "description", "dump", "find", "json_schema", "load", "loads", "resolved"]
