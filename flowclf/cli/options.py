"""Arguments and options that several commands share, and the checks that need no torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flowclf.errors import UsageError

__all__ = ["DATA", "DEVICE", "JSON", "MODEL", "Device", "Protocol", "check_exists", "check_model"]


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Protocol(StrEnum):
    """How much to measure."""

    quick = "quick"
    full = "full"


DEVICE = Annotated[Device, typer.Option("--device", help="Device to compute on; auto uses a GPU if there is one.")]
JSON = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on standard output.")]
MODEL = Annotated[str, typer.Argument(metavar="MODEL", help="A run directory, a checkpoint, or the name of a zoo model.")]


def DATA(use: str) -> Any:  # noqa: N802 - an option, as the others are
    """The option ``--data``, with what the command uses the data for."""
    return typer.Option("--data", metavar="NAME-or-path", help=use)


def check_exists(*paths: str | Path) -> None:
    """Raise UsageError for a path that does not exist, before anything heavy is imported."""
    for path in paths:
        if not _exists(path):
            raise UsageError(f"there is no file or directory {path}")


def check_model(model: str) -> None:
    """Raise UsageError for a MODEL that is neither a path nor a zoo name, before anything heavy is imported."""
    if _exists(model):
        return
    from flowclf import zoo

    try:
        zoo.info(model)
    except UsageError as error:
        raise UsageError(f"there is no file or directory {model}, and {error}") from error


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
