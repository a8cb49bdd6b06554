"""Arguments and options shared by several commands, and checks that need no torch."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flowclf.errors import UsageError


class Device(StrEnum):
    """Device to compute on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Protocol(StrEnum):
    """Evaluation protocol."""

    quick = "quick"
    full = "full"


DEVICE = Annotated[Device, typer.Option("--device", help="Device to compute on; auto uses a GPU if there is one.")]
FIGURE = Annotated[Path, typer.Option("--out", metavar="FILE.png", help="Figure to write, with its data as .npz beside it.")]
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
MODEL = Annotated[str, typer.Argument(metavar="MODEL", help="A run directory, a checkpoint folder, or the name of a zoo model.")]


def DATA(use: str) -> Any:  # noqa: N802 - an option like the others
    """Make the option ``--data``; ``use`` is its help."""
    return typer.Option("--data", metavar="NAME-or-path", help=use)


DATA_ROOT = Annotated[
    Path | None,
    typer.Option(
        "--data-root", metavar="PATH", help="Folder or file of the data of MODEL's recipe, if they are not where they were."
    ),
]


def check_exists(*paths: str | Path) -> None:
    """Raise UsageError if a path does not exist, before heavy imports."""
    for path in paths:
        if not os.path.exists(path):
            raise UsageError(f"there is no file or directory {path}")


def check_files(*paths: Path) -> None:
    """Raise UsageError if a path is not that of a file, before heavy imports."""
    check_exists(*paths)
    for path in paths:
        if path.is_dir():
            raise UsageError(f"expected a file, found the folder {path}")


def check_model(model: str) -> None:
    """Raise UsageError if MODEL is neither a path nor a zoo name, before heavy imports."""
    if os.path.exists(model):
        return
    from flowclf import zoo

    try:
        zoo.info(model)
    except UsageError as error:
        raise UsageError(f"there is no file or directory {model}, and {error}") from error
