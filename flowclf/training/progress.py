"""How work that takes long reports its progress."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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


class _SilentTask:
    def advance(self, n: int = 1, **values: float) -> None:
        """Nothing."""


class SilentProgress:
    """Progress that is not shown."""

    def message(self, text: str) -> None:
        """Nothing."""

    def row(self, row: dict[str, Any]) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """A task that is not shown."""
        yield _SilentTask()
