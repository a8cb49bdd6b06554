"""Interrupts, precision by device, and the progress that tells nobody."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from flowclf.errors import UsageError
from flowclf.training.interrupts import interrupts
from flowclf.training.precision import native_bf16, subnet_dtype
from flowclf.training.progress import SilentProgress

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_and_a_second_one_an_order(number: signal.Signals) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with interrupts() as state:
        assert not state()
        os.kill(os.getpid(), number)
        assert state()
        assert state.signum == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert state.signum == number
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_handlers_come_back_after_a_failure() -> None:
    handler = signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with interrupts():
            raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        fail()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_other_threads_train_without_signals() -> None:
    results: list[bool] = []

    def work() -> None:
        with interrupts() as state:
            results.append(state())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]


def test_the_precision_of_subnets() -> None:
    assert subnet_dtype("fp32", CPU) is None
    assert subnet_dtype("bf16", CPU) == torch.bfloat16
    assert subnet_dtype("auto", CPU) == (torch.bfloat16 if native_bf16(CPU) else None)
    assert not native_bf16(torch.device("meta"))
    with pytest.raises(UsageError, match="auto, fp32 or bf16, found 'half'"):
        subnet_dtype("half", CPU)


def test_silence_is_a_progress() -> None:
    progress = SilentProgress()
    progress.message("text")
    progress.row({"epoch": 1})
    with progress.task("training", 3) as task:
        task.advance(1, loss=0.5)
