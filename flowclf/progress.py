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


LONG_SECONDS = 20.0
"""Work of at least this length is announced, with its expected duration, soon after it has begun."""


def forecast(progress: Progress, what: str, seconds: Callable[[], tuple[float, float]]) -> None:
    """Announce how long work will take, if that is long.

    Args:
        progress: receives a message.
        what: name of the work.
        seconds: measures the shortest and the longest expected duration, from a few steps of the work; not called if nothing is
            shown.
    """
    if isinstance(progress, SilentProgress):
        return
    least, most = seconds()
    if most >= LONG_SECONDS:
        progress.message(f"{what}: about {duration(least, most)}")


def duration(least: float, most: float | None = None) -> str:
    """A duration in words, rounded, in the unit that suits it; a range if ``most`` seconds differ from ``least``.

    Example:
        >>> duration(47), duration(720), duration(250, 540), duration(3 * 3600)
        ('50 seconds', '12 minutes', '4 to 9 minutes', '3 hours')
    """
    longest = max(least, most or 0.0)
    unit, size, step = ("seconds", 1, 10) if longest < 150 else ("minutes", 60, 1) if longest < 5400 else ("hours", 3600, 0.1)
    first, last = (f"{max(1, round(value / size / step)) * step:.3g}" for value in (least, longest))
    return f"{last} {unit}" if first == last else f"{first} to {last} {unit}"
