"""The base of every section of settings, and what the signature of a registered component says about its arguments."""

from __future__ import annotations

from flowclf.signatures.annotations import found
from flowclf.signatures.checking import Component, Section, failure, problem
from flowclf.signatures.one_of import OneOf

__all__ = ["Component", "OneOf", "Section", "failure", "found", "problem"]
