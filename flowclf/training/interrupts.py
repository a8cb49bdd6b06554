"""SIGINT and SIGTERM as a request to finish the step, save and stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """Whether a signal came, and which: ``signum`` is the number of the first, or None."""

    def __init__(self) -> None:
        self.signum: int | None = None
        # For work that does not check whether to stop: raise KeyboardInterrupt at the first signal.
        self.immediate = False

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.signum is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = self.signum is not None
        self.signum = self.signum or signum
        if again or self.immediate:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Handle SIGINT and SIGTERM within the block; a second signal raises KeyboardInterrupt. In the main thread only."""
    state = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before = {number: signal.signal(number, state._handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
