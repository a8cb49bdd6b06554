"""The signature of a registered component is its schema: nothing else says which arguments a recipe can give.

Signatures are read from source text without importing the component, so a recipe is checked without torch. Only the public names
belong here.
"""

from __future__ import annotations

from flowclf.signatures.checking import Component, Section, to_pydantic
from flowclf.signatures.components import checked_spec, component_model
from flowclf.signatures.reading import UNKNOWN, Argument, Signature, arguments

__all__ = [
    "UNKNOWN",
    "Argument",
    "Component",
    "Section",
    "Signature",
    "arguments",
    "checked_spec",
    "component_model",
    "to_pydantic",
]
