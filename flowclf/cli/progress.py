"""Progress on standard error: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

__all__ = ["PlainProgress", "TerminalProgress", "showing_progress"]

_SECONDS_BETWEEN_LINES = 30.0


class _Task(Protocol):
    def advance(self, n: int = 1, **values: float) -> None: ...


def _numbers(values: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class _PlainTask:
    def __init__(self, description: str, total: int) -> None:
        self.description, self.total, self.done = description, total, 0
        self.started: tuple[float, int] | None = None
        self.last_line = time.monotonic()

    def advance(self, n: int = 1, **values: float) -> None:
        now = time.monotonic()
        self.done += n
        if self.started is None:
            # What a resumed run has behind it comes as the first step and took no time now.
            self.started = (now, self.done)
        if now - self.last_line >= _SECONDS_BETWEEN_LINES and self.done < self.total:
            self.last_line = now
            began, before = self.started
            left = (self.total - self.done) * (now - began) / max(1, self.done - before)
            numbers = f"  {_numbers(values)}" if values else ""
            _line(f"{self.description}: {self.done}/{self.total}, {_clock(left)} left{numbers}")


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class PlainProgress:
    """Lines of text: one for each message and epoch, and at most one in 30 seconds for a task."""

    def message(self, text: str) -> None:
        """A line of text."""
        _line(text)

    def row(self, row: dict[str, Any]) -> None:
        """An epoch's metrics, on one line."""
        _line(_numbers(row))

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[_Task]:
        """A stretch of work with ``total`` steps."""
        yield _PlainTask(description, total)


class TerminalProgress:
    """Bars of rich, one for each task that is under way; messages and epochs scroll above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> TerminalProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        """A line of text."""
        self._progress.console.print(text, markup=False, highlight=False)

    def row(self, row: dict[str, Any]) -> None:
        """An epoch's metrics, on one line."""
        self._progress.console.print(_numbers(row), markup=False, highlight=False)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[_Task]:
        """A stretch of work with ``total`` steps."""
        bars = self._progress
        identifier = bars.add_task(description, total=total, values="")

        class Bar:
            def advance(self, n: int = 1, **values: float) -> None:
                if values:
                    bars.update(identifier, advance=n, values=_numbers(values))
                else:
                    bars.update(identifier, advance=n)

        try:
            yield Bar()
        finally:
            bars.remove_task(identifier)


@contextlib.contextmanager
def showing_progress() -> Iterator[PlainProgress | TerminalProgress]:
    """Bars where standard error is a terminal, else plain lines."""
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    with TerminalProgress() as progress:
        yield progress
