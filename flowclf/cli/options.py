"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["DEVICE", "JSON", "Device", "Protocol"]


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Protocol(StrEnum):
    """How much to measure."""

    quick = "quick"
    full = "full"


DEVICE = Annotated[Device, typer.Option("--device", help="Where to compute; auto takes a GPU if there is one.")]
JSON = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on standard output.")]
