"""How long work tells of its progress, without knowing who listens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

__all__ = ["Progress", "SilentProgress", "Task"]


class Task(Protocol):
    """One stretch of work with a known number of steps."""

    def advance(self, n: int = 1, **values: float) -> None:
        """``n`` more steps are done; ``values`` are numbers to show beside them."""


class Progress(Protocol):
    """Whoever wants to know."""

    def message(self, text: str) -> None:
        """A line of text."""

    def row(self, row: dict[str, Any]) -> None:
        """An epoch's metrics."""

    def task(self, description: str, total: int) -> contextlib.AbstractContextManager[Task]:
        """A stretch of work with ``total`` steps."""


class _SilentTask:
    def advance(self, n: int = 1, **values: float) -> None:
        """Nothing."""


class SilentProgress:
    """Tells nobody."""

    def message(self, text: str) -> None:
        """Nothing."""

    def row(self, row: dict[str, Any]) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """A task that tells nobody."""
        yield _SilentTask()
