from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from flowclf.cli import progress as module
from flowclf.cli.progress import PlainProgress, TerminalProgress, showing_progress
from flowclf.progress import duration

if TYPE_CHECKING:
    from flowclf.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def test_lines_off_a_terminal(capsys):
    with showing_progress() as progress:
        assert isinstance(progress, PlainProgress)
        progress.message("hello [bold]")
        progress.row({"epoch": 1, "train.loss": 0.123456, "name": "a"})
        with progress.task("training", 10) as task:
            task.advance(10, loss=0.5)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "hello [bold]\nepoch 1  train.loss 0.1235  name a\n"


def test_a_long_task_has_a_line_in_thirty_seconds(capsys, clock):
    with PlainProgress().task("training", 1000) as task:
        for _ in range(100):
            clock.now += 1
            task.advance(1, loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    # At the pace of the first step, then at that of all.
    assert lines.pop(0) == "training: about 17 minutes"
    assert lines == [
        f"training: {30 * k}/1000, 0:{left // 60:02d}:{left % 60:02d} left  loss 0.25" for k, left in [(1, 970), (2, 940), (3, 910)]
    ]


def test_what_a_resumed_run_has_behind_it_does_not_count_as_speed(capsys, clock):
    with PlainProgress().task("training", 1000) as task:
        task.advance(900)
        for _ in range(31):
            clock.now += 1
            task.advance()
    assert capsys.readouterr().err == "training: about 100 seconds\ntraining: 930/1000, 0:01:10 left\n"


def test_a_task_that_has_not_moved_has_no_estimate_to_divide_by(capsys, clock):
    with PlainProgress().task("training", 10) as task:
        clock.now += 31
        task.advance(0)
    assert capsys.readouterr().err == "training: 0/10, 0:00:00 left\n"


def test_a_short_task_is_not_announced(capsys, clock):
    with PlainProgress().task("training", 15) as task:
        for _ in range(15):
            clock.now += 1
            task.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("step", [0.01, 0.5, 1, 7])
def test_a_long_task_is_announced_in_its_first_steps_however_slow_they_are(step, capsys, clock):
    began = clock.now
    with PlainProgress().task("encoding", 10_000) as task:
        while not (said := capsys.readouterr().err):
            clock.now += step
            task.advance()
    assert clock.now - began <= max(1.1, step)
    assert said == f"encoding: about {duration(10_000 * step)}\n"


def test_bars_on_a_terminal(monkeypatch, clock):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with showing_progress() as progress:
        assert isinstance(progress, TerminalProgress)
        with progress.task("training", 10) as task:
            clock.now += 30
            task.advance(5, loss=0.5)
            with progress.task("probe [x]", 3) as inner:
                inner.advance()
            progress.row({"epoch": 1})
            progress.message("[bold]")
    text = terminal.getvalue()
    assert "epoch 1" in text
    assert "training: about 30 seconds" in text
    assert "[bold]" in text


def test_both_are_what_training_expects():
    def takes(progress: Progress) -> None: ...

    takes(PlainProgress())
    takes(TerminalProgress())
