"""Durations in words, and forecasts that are measured only for those who see them."""

from __future__ import annotations

from typing import Any

import pytest

from flowclf.progress import SilentProgress, duration, forecast


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def row(self, row: dict[str, Any]) -> None: ...

    def task(self, description: str, total: int) -> Any: ...


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((3,), "10 seconds"),
        ((24,), "20 seconds"),
        ((149,), "150 seconds"),
        ((150,), "2 minutes"),
        ((12 * 60 + 20,), "12 minutes"),
        ((89 * 60,), "89 minutes"),
        ((90 * 60,), "1.5 hours"),
        ((30, 600), "1 to 10 minutes"),
        ((100, 104), "100 seconds"),
        ((20 * 60, 20 * 60 + 5), "20 minutes"),
    ],
)
def test_durations_are_rounded_words(seconds: tuple[float, ...], words: str) -> None:
    assert duration(*seconds) == words


def test_what_no_one_sees_is_not_measured() -> None:
    forecast(SilentProgress(), "work", lambda: pytest.fail("measured"))


def test_only_long_work_is_forecast() -> None:
    heard = Listener()
    forecast(heard, "work", lambda: (3.0, 19.0))
    assert heard.lines == []
    forecast(heard, "work", lambda: (240.0, 540.0))
    assert heard.lines == ["work: about 4 to 9 minutes"]
