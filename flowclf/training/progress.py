"""How long work reports its progress."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol


class Task(Protocol):
    """Work with a known number of steps."""

    def advance(self, n: int = 1, **values: float) -> None:
        """``n`` more steps are done; ``values`` are numbers to show with them."""


class Progress(Protocol):
    """What receives messages, rows of metrics and steps."""

    def message(self, text: str) -> None:
        """Receive a line of text."""

    def row(self, row: dict[str, Any]) -> None:
        """Receive the metrics of an epoch."""

    def task(self, description: str, total: int) -> contextlib.AbstractContextManager[Task]:
        """Begin work of ``total`` steps."""


class SilentProgress:
    """Progress that is not shown; its own task too."""

    def message(self, text: str) -> None:
        """Nothing."""

    def row(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def advance(self, n: int = 1, **values: float) -> None:
        """Nothing."""

    def task(self, description: str, total: int) -> contextlib.AbstractContextManager[Task]:
        """A task that is not shown."""
        return contextlib.nullcontext(self)
