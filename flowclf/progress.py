"""How long work reports its progress.

Work that is given a :class:`Progress` reports to it. Reading data is also started where none is at hand, from any data set's
function: it reports to :func:`shown_progress`, which a program chooses with :func:`progress_shown_by`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
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

    def task(self, description: str, total: int) -> AbstractContextManager[Task]:
        """Begin work of ``total`` steps."""


class SilentProgress:
    """Progress that is not shown; its own task too."""

    def message(self, text: str) -> None:
        """Nothing."""

    def row(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def advance(self, n: int = 1, **values: float) -> None:
        """Nothing."""

    def task(self, description: str, total: int) -> AbstractContextManager[Task]:
        """A task that is not shown."""
        return contextlib.nullcontext(self)


_Shown = Callable[[], AbstractContextManager[Progress]]

_SHOWN: ContextVar[_Shown] = ContextVar("_SHOWN", default=lambda: contextlib.nullcontext(SilentProgress()))


@contextlib.contextmanager
def progress_shown_by(shown: _Shown) -> Iterator[None]:
    """Within the block, :func:`shown_progress` opens what ``shown`` returns."""
    token = _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.reset(token)


def shown_progress() -> AbstractContextManager[Progress]:
    """Context of the progress that the program shows; by default nothing is shown.

    Example:
        >>> with shown_progress() as progress, progress.task("reading", 3) as task:
        ...     task.advance(3)
    """
    return _SHOWN.get()()
