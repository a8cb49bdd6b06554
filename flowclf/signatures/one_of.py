"""A mapping whose ``name`` says which of several sections it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from flowclf.registry import nearest
from flowclf.signatures.annotations import found
from flowclf.signatures.checking import Section, failure, problem
from flowclf.signatures.components import PLACEHOLDER

__all__ = ["OneOf"]


class OneOf:
    """Annotation: a mapping whose ``name`` says which section it is; without a name, the first.

    Args:
        kind: what an error message calls it.
        sections: name -> section.
    """

    def __init__(self, kind: str, sections: Mapping[str, type[Section]]) -> None:
        self.kind = kind
        self.sections = dict(sections)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check, metadata={"pydantic_js_functions": [lambda schema, handler: {PLACEHOLDER: self.kind}]}
        )

    def check(self, value: Any) -> Section:
        """The section.

        Raises:
            ValidationError: not a mapping, another name, or keys that the section refuses.
        """
        if isinstance(value, Section):
            return value
        if not isinstance(value, Mapping):
            raise failure(problem(f"expected a mapping with a name, found {found(value)}"))
        name = value.get("name", next(iter(self.sections)))
        if not isinstance(name, str) or name not in self.sections:
            hint = nearest(name, self.sections) if isinstance(name, str) else nearest("", self.sections)
            raise failure(problem(f"unknown {self.kind} {found(name)}{hint}", ("name",)))
        return self.sections[name].model_validate(value)
