"""Progress on standard error: bars with the remaining time on a terminal, lines of text elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flowclf.progress import LONG_SECONDS, SilentProgress, duration, progress_shown_by

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from flowclf.progress import Task

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_TO_MEASURE = 1.0


def _numbers(values: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items())


class _Pace:
    """How fast a task goes. Soon after it has begun, its duration is announced if that is long."""

    def __init__(self, description: str, total: int, say: Callable[[str], None]) -> None:
        self.description, self.total, self.done, self.say = description, total, 0, say
        self.began = self.now = time.monotonic()
        self.started: tuple[float, int] | None = None
        self.announced = False

    def advance(self, n: int) -> None:
        self.now = time.monotonic()
        self.done += n
        if self.started is None:
            # The first update of a resumed run counts all earlier steps, which took no time now.
            self.started = (self.now, self.done)
        if self.announced or self.now - self.began < _SECONDS_TO_MEASURE:
            return
        self.announced = True
        if (left := self.seconds_left()) >= LONG_SECONDS:
            self.say(f"{self.description}: about {duration(left)}")

    def seconds_left(self) -> float:
        start, before = self.started or (self.began, 0)
        if self.done == before and self.now - self.began >= _SECONDS_TO_MEASURE:
            # A first step that took long is all that there is to go by.
            start, before = self.began, 0
        if self.done == before:
            return 0.0
        return (self.total - self.done) * (self.now - start) / max(1, self.done - before)


class _PlainTask:
    def __init__(self, description: str, total: int) -> None:
        self.pace = _Pace(description, total, _line)
        self.last_line = time.monotonic()

    def advance(self, n: int = 1, **values: float) -> None:
        pace = self.pace
        pace.advance(n)
        if pace.now - self.last_line >= _SECONDS_BETWEEN_LINES and pace.done < pace.total:
            self.last_line = pace.now
            left = timedelta(seconds=int(pace.seconds_left()))
            numbers = f"  {_numbers(values)}" if values else ""
            _line(f"{pace.description}: {pace.done}/{pace.total}, {left} left{numbers}")


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class PlainProgress:
    """Progress as lines of text: one per message and per epoch; per task its duration if that is long, and one every 30 seconds."""

    def message(self, text: str) -> None:
        """Print a line of text."""
        _line(text)

    def row(self, row: dict[str, Any]) -> None:
        """Print an epoch's metrics on one line."""
        _line(_numbers(row))

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """Context for a task, shown as lines with the remaining time."""
        yield _PlainTask(description, total)


class _Bar:
    def __init__(self, bars: Progress, identifier: TaskID, pace: _Pace) -> None:
        self.bars, self.identifier, self.pace = bars, identifier, pace

    def advance(self, n: int = 1, **values: float) -> None:
        self.pace.advance(n)
        fields: dict[str, Any] = {"values": _numbers(values)} if values else {}
        self.bars.update(self.identifier, advance=n, **fields)


class TerminalProgress:
    """Progress as rich's bars, one per running task; messages and epochs scroll above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )

    def message(self, text: str) -> None:
        """Print a line of text."""
        self.bars.console.print(text, markup=False, highlight=False)

    def row(self, row: dict[str, Any]) -> None:
        """Print an epoch's metrics on one line."""
        self.message(_numbers(row))

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        """Context for a task, shown as a bar."""
        pace = _Pace(description, total, self.message)
        task = _Bar(self.bars, self.bars.add_task(description, total=total, values=""), pace)
        try:
            yield task
        finally:
            self.bars.remove_task(task.identifier)


def speaks() -> bool:
    """Whether this process tells the user how it goes: of several that torchrun started, the first alone does."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def showing_progress() -> Iterator[PlainProgress | TerminalProgress | SilentProgress]:
    """Context that shows progress: bars if standard error is a terminal, otherwise lines of text."""
    if not speaks():
        silent = SilentProgress()
        with progress_shown_by(lambda: contextlib.nullcontext(silent)):
            yield silent
    elif sys.stderr.isatty():
        progress = TerminalProgress()
        with progress.bars, progress_shown_by(lambda: contextlib.nullcontext(progress)):
            yield progress
    else:
        lines = PlainProgress()
        with progress_shown_by(lambda: contextlib.nullcontext(lines)):
            yield lines
